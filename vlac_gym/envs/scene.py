"""What the simulator knows and pictures do not: `Predicate`, `PrivilegedScene` and `LiberoScene`.

A scene is a read-only view. Experts and the oracle's progress read it; policies under training never do.
Names are BDDL names: ``akita_black_bowl_1`` (object), ``flat_stove_1`` (fixture),
``wooden_cabinet_1_top_region`` (region, a site of a fixture, object or table).
"""

__all__ = ["JointGoal", "LiberoScene", "Predicate", "PrivilegedScene", "Vector"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vlac_gym.envs.finger_gaps import are_fingers_near
from vlac_gym.envs.rotations import quaternion_of
from vlac_gym.errors import ConfigError, unknown_name

Vector: TypeAlias = NDArray[np.float64]

_FINGERS = (
    ("gripper0_finger1_collision", "gripper0_finger1_pad_collision"),
    ("gripper0_finger2_collision", "gripper0_finger2_pad_collision"),
)
_LEAST_HELD_M = 0.002  # a hand closed on nothing; the thinnest rim, a bowl's, keeps it 4 mm open
_MOST_HELD_M = 0.07  # an open hand, 80 mm, may stand around a wide object without holding it
_GRIP_SITE = "gripper0_grip_site"
_SLIDE_JOINT = 2  # mjtJoint.mjJNT_SLIDE
_FINGER_JOINTS = ("gripper0_finger_joint1", "gripper0_finger_joint2")


@dataclass(frozen=True)
class Predicate:
    """One condition of a BDDL goal.

    Attributes:
        name: Lower-case name: ``on``, ``in``, ``open``, ``close``, ``turnon``, ``turnoff``, ``up``.
        args: BDDL names, one or two.
    """

    name: str
    args: tuple[str, ...]

    def __str__(self) -> str:
        return f"({self.name} {' '.join(self.args)})"


class JointGoal(NamedTuple):
    """When a joint predicate holds: `sign * position > sign * threshold`.

    Attributes:
        threshold: Joint position in m (slide) or rad (hinge).
        sign: +1 if the joint must exceed the threshold, -1 if it must fall below it.
    """

    threshold: float
    sign: int


@runtime_checkable
class PrivilegedScene(Protocol):
    """Read-only access to a tabletop scene's state. Positions are in m, world frame, z up; arrays are copies.

    Every method that takes a name raises `ConfigError`, with the known names, for one the scene lacks.
    """

    @property
    def task(self) -> str:
        """The instruction, e.g. ``"put the bowl on the plate"``."""
        ...

    @property
    def goal(self) -> tuple[Predicate, ...]:
        """The goal's conditions; the task is solved while all hold at once."""
        ...

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the movable objects."""
        ...

    @property
    def fixtures(self) -> tuple[str, ...]:
        """Names of what stands still: cabinets, stoves, racks; the table is not among them."""
        ...

    @property
    def elapsed_steps(self) -> int:
        """Environment steps since reset, settling steps not counted."""
        ...

    def owner(self, name: str) -> str:
        """The object or fixture that a region belongs to, ``"table"`` for a region of the table, else `name`."""
        ...

    def category(self, name: str) -> str:
        """Kind of an object or fixture (``"akita_black_bowl"``), or of the one that a region belongs to."""
        ...

    def object_position(self, name: str) -> Vector:
        """Origin of an object's or fixture's body, or centre of a region: float64 (3,)."""
        ...

    def object_quaternion(self, name: str) -> Vector:
        """Orientation of an object, fixture or region: unit quaternion (w, x, y, z), float64 (4,)."""
        ...

    def object_bounds(self, name: str) -> tuple[Vector, Vector]:
        """Lowest and highest corner of the world-aligned box around the collision shapes or region."""
        ...

    def object_extent(self, name: str, direction: Vector) -> tuple[float, float]:
        """Lowest and highest coordinate of an object's or fixture's collision shapes along a unit vector, m."""
        ...

    def clearance(self, points: Vector, ignore: Sequence[str] = ()) -> Vector:
        """Distance in m from each point to the nearest collision shape's box; 0 inside one.

        Args:
            points: float64 (N, 3).
            ignore: Objects and fixtures to leave out; table and robot are never counted.

        Returns:
            float64 (N,), infinite where nothing is left to hit.
        """
        ...

    def is_jointed(self, name: str) -> bool:
        """True if exactly one joint moves this fixture or region: a drawer, a knob, a door."""
        ...

    def joint_position(self, name: str) -> float:
        """Position of the joint that moves a fixture (stove knob) or a region (drawer): m or rad."""
        ...

    def joint_axis(self, name: str) -> tuple[Vector, Vector]:
        """A point on the joint's axis and its unit direction: a drawer slides along it, a knob turns about it."""
        ...

    def joint_goal(self, predicate: Predicate) -> JointGoal:
        """Where the joint must be for an open, close, turnon or turnoff predicate to hold."""
        ...

    def handle_position(self, name: str) -> Vector:
        """Where to take hold of a jointed fixture or region: a drawer's or door's bar, a knob's ridge; float64 (3,)."""
        ...

    def predicate_holds(self, predicate: Predicate) -> bool:
        """The simulator's own verdict on one predicate in the present state."""
        ...

    def is_success(self) -> bool:
        """The simulator's own verdict on the whole goal in the present state."""
        ...

    @property
    def end_effector_position(self) -> Vector:
        """Point between the finger tips: float64 (3,)."""
        ...

    @property
    def end_effector_axes(self) -> Vector:
        """Rotation matrix float64 (3, 3); columns x (fingers close along it), y, z (they point along it)."""
        ...

    @property
    def gripper_opening(self) -> float:
        """Distance between the fingers in m: 0 closed, about 0.08 open."""
        ...

    def is_grasped(self, name: str) -> bool:
        """True if both fingers touch the object or fixture."""
        ...

    def is_held(self, name: str) -> bool:
        """`is_grasped`, or between fingers that miss it by less than 3 mm, as they do for moments on a thin rim."""
        ...

    def camera_position(self, camera: str) -> Vector:
        """Where a camera stands, e.g. ``"agentview"``: float64 (3,)."""
        ...


class LiberoScene:
    """A `PrivilegedScene` over LIBERO's robosuite environment (a `BDDLBaseDomain`).

    It holds no state of its own and looks every quantity up through the environment, so it stays valid
    when the simulator is reset or rebuilt.

    Args:
        domain: LIBERO's inner environment (`ControlEnv.env`).
        elapsed_steps: Called for the number of steps since reset; the default is robosuite's counter.
    """

    def __init__(self, domain: Any, elapsed_steps: Callable[[], int] | None = None) -> None:
        self._domain = domain
        self._elapsed_steps = elapsed_steps

    @property
    def task(self) -> str:
        words = self._domain.parsed_problem["language_instruction"]
        return words if isinstance(words, str) else " ".join(words)

    @property
    def goal(self) -> tuple[Predicate, ...]:
        states = self._domain.parsed_problem["goal_state"]
        return tuple(Predicate(str(state[0]).lower(), tuple(state[1:])) for state in states)

    @property
    def objects(self) -> tuple[str, ...]:
        return tuple(self._domain.objects_dict)

    @property
    def fixtures(self) -> tuple[str, ...]:
        return tuple(name for name in self._domain.fixtures_dict if name in self._domain.object_states_dict)

    @property
    def elapsed_steps(self) -> int:
        return int(self._domain.timestep if self._elapsed_steps is None else self._elapsed_steps())

    def owner(self, name: str) -> str:
        if name not in self._domain.object_sites_dict:
            return str(self._model_of(name).name)
        return str(self._domain.object_sites_dict[name].parent_name or "table")

    def category(self, name: str) -> str:
        owner = self.owner(name)
        return owner if owner == "table" else str(self._model_of(owner).category_name)

    def object_position(self, name: str) -> Vector:
        if name in self._domain.object_sites_dict:
            return np.array(self._domain.sim.data.get_site_xpos(name), dtype=np.float64)
        return np.array(self._domain.sim.data.body_xpos[self._body_id(name)], dtype=np.float64)

    def object_quaternion(self, name: str) -> Vector:
        if name in self._domain.object_sites_dict:
            return quaternion_of(np.asarray(self._domain.sim.data.get_site_xmat(name), dtype=np.float64))
        return np.array(self._domain.sim.data.body_xquat[self._body_id(name)], dtype=np.float64)

    def object_bounds(self, name: str) -> tuple[Vector, Vector]:
        if name in self._domain.object_sites_dict:
            size = np.asarray(self._domain.object_sites_dict[name].size, dtype=np.float64)
            reach = np.abs(np.asarray(self._domain.sim.data.get_site_xmat(name))) @ size
            centre = self.object_position(name)
            return centre - reach, centre + reach
        centres, rotations, halves = self._boxes([name])
        reach = np.einsum("nij,nj->ni", np.abs(rotations), halves)
        return np.min(centres - reach, axis=0), np.max(centres + reach, axis=0)

    def object_extent(self, name: str, direction: Vector) -> tuple[float, float]:
        centres, rotations, halves = self._boxes([name])
        along = centres @ direction
        reach = np.einsum("nj,nj->n", np.abs(np.einsum("i,nij->nj", direction, rotations)), halves)
        return float(np.min(along - reach)), float(np.max(along + reach))

    def clearance(self, points: Vector, ignore: Sequence[str] = ()) -> Vector:
        names = [name for name in (*self.objects, *self.fixtures) if name not in ignore]
        if not names:
            return np.full(len(points), np.inf)
        centres, rotations, halves = self._boxes(names)
        local = np.einsum("nji,pnj->pni", rotations, points[:, None, :] - centres[None])
        outside = np.maximum(np.abs(local) - halves[None], 0.0)
        nearest: Vector = np.min(np.linalg.norm(outside, axis=2), axis=1)
        return nearest

    def is_jointed(self, name: str) -> bool:
        return len(self._joints(name)) == 1 and name not in self._domain.objects_dict

    def joint_position(self, name: str) -> float:
        address = self._domain.sim.model.get_joint_qpos_addr(self._joint_of(name))
        return float(self._domain.sim.data.qpos[address])

    def joint_axis(self, name: str) -> tuple[Vector, Vector]:
        joint = self._domain.sim.model.joint_name2id(self._joint_of(name))
        data = self._domain.sim.data
        return np.array(data.xanchor[joint], np.float64), np.array(data.xaxis[joint], np.float64)

    def joint_goal(self, predicate: Predicate) -> JointGoal:
        known = {
            "open": "default_open_ranges",
            "close": "default_close_ranges",
            "turnon": "default_turnon_ranges",
            "turnoff": "default_turnoff_ranges",
        }
        if predicate.name not in known:
            raise unknown_name("joint predicate", predicate.name, known)
        ranges = self._articulation(predicate.args[0])
        near = ranges[known[predicate.name]]
        other = ranges[known[_OPPOSITE[predicate.name]]]
        # LIBERO's classes compare with the end of the range that faces the opposite predicate's range.
        if sum(near) > sum(other):
            return JointGoal(float(min(near)), 1)
        return JointGoal(float(max(near)), -1)

    def handle_position(self, name: str) -> Vector:
        sim = self._domain.sim
        joint = sim.model.joint_name2id(self._joint_of(name))
        # A geom collides by either mask: LIBERO's microwave has `conaffinity` alone.
        collides = np.asarray(sim.model.geom_contype) | np.asarray(sim.model.geom_conaffinity)
        geoms = np.flatnonzero(
            (np.asarray(sim.model.geom_bodyid) == sim.model.jnt_bodyid[joint]) & (collides != 0)
        )
        centres = np.asarray(sim.data.geom_xpos, dtype=np.float64)[geoms]
        anchor, axis = self.joint_axis(name)
        if sim.model.jnt_type[joint] == _SLIDE_JOINT:
            # The bar is the part that sticks out furthest in the direction in which the drawer opens.
            reach = centres @ axis * self.joint_goal(Predicate("open", (name,))).sign
        elif self._articulation(name)["default_open_ranges"]:
            # A door's bar is the part that is furthest from its hinge.
            reach = np.linalg.norm(np.cross(centres - anchor, axis), axis=1)
        else:
            reach = centres[:, 2]
        furthest: Vector = centres[int(np.argmax(reach))]
        return furthest

    def predicate_holds(self, predicate: Predicate) -> bool:
        return bool(self._domain._eval_predicate([predicate.name, *predicate.args]))

    def is_success(self) -> bool:
        return bool(self._domain._check_success())

    @property
    def end_effector_position(self) -> Vector:
        return np.array(self._domain.sim.data.get_site_xpos(_GRIP_SITE), dtype=np.float64)

    @property
    def end_effector_axes(self) -> Vector:
        return np.array(self._domain.sim.data.get_site_xmat(_GRIP_SITE), dtype=np.float64)

    @property
    def gripper_opening(self) -> float:
        sim = self._domain.sim
        left, right = (sim.data.qpos[sim.model.get_joint_qpos_addr(joint)] for joint in _FINGER_JOINTS)
        return float(abs(left - right))

    def is_grasped(self, name: str) -> bool:
        geoms = self._model_of(name).contact_geoms
        return all(bool(self._domain.check_contact(list(finger), geoms)) for finger in _FINGERS)

    def is_held(self, name: str) -> bool:
        if self.is_grasped(name):
            return True
        return _LEAST_HELD_M < self.gripper_opening < _MOST_HELD_M and are_fingers_near(
            self._domain.sim, _FINGERS, self._model_of(name).contact_geoms
        )

    def camera_position(self, camera: str) -> Vector:
        names = self._domain.sim.model.camera_names
        if camera not in names:
            raise unknown_name("camera", camera, names)
        return np.array(self._domain.sim.data.get_camera_xpos(camera), dtype=np.float64)

    def _boxes(self, names: Sequence[str]) -> tuple[Vector, Vector, Vector]:
        """Oriented boxes around the collision shapes: centres (N, 3), rotations (N, 3, 3), half sizes (N, 3)."""
        sim = self._domain.sim
        geoms = [
            sim.model.geom_name2id(geom) for name in names for geom in self._model_of(name).contact_geoms
        ]
        rotations = np.asarray(sim.data.geom_xmat, dtype=np.float64)[geoms].reshape(-1, 3, 3)
        boxes = np.asarray(sim.model.geom_aabb, dtype=np.float64).reshape(-1, 6)[geoms]
        centres = np.asarray(sim.data.geom_xpos)[geoms] + np.einsum("nij,nj->ni", rotations, boxes[:, :3])
        return centres, rotations, boxes[:, 3:]

    def _model_of(self, name: str) -> Any:
        for table in (self._domain.objects_dict, self._domain.fixtures_dict):
            if name in table:
                return table[name]
        raise unknown_name("object or fixture", name, self._names())

    def _body_id(self, name: str) -> int:
        if name not in self._domain.obj_body_id:
            raise unknown_name("object, fixture or region", name, self._names())
        return int(self._domain.obj_body_id[name])

    def _joints(self, name: str) -> Sequence[str]:
        sites = self._domain.object_sites_dict
        return list((sites[name] if name in sites else self._model_of(name)).joints or ())

    def _joint_of(self, name: str) -> str:
        joints = self._joints(name)
        if not self.is_jointed(name):
            raise ConfigError(
                f"Expected a drawer, knob or door that one joint moves, got {name!r}: {joints}."
            )
        return joints[0]

    def _articulation(self, name: str) -> Any:
        return self._model_of(self.owner(name)).object_properties["articulation"]

    def _names(self) -> list[str]:
        return [*self._domain.obj_body_id, *self._domain.object_sites_dict]


_OPPOSITE = {"open": "close", "close": "open", "turnon": "turnoff", "turnoff": "turnon"}
