"""A scene made of boxes, without physics: `BoxScene`, `Box`, `Slide`. For tests and for trying out planners.

The hand carries out half of each commanded motion, as an arm that lags does; closed fingers hold whatever box
is between them, and a box that is let go drops onto what is below it. Joints follow the hand while it holds
their handle.
"""

__all__ = ["Box", "BoxScene", "Slide"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from vlac_gym.envs.scene import JointGoal, Predicate, Vector
from vlac_gym.errors import ConfigError, unknown_name

_METRES_PER_UNIT = 0.025
_RADIANS_PER_UNIT = 0.25
_OPEN_M = 0.08
_FINGER_SPEED_M = 0.008
_HOLD_REACH_M = 0.02
_TOUCH_M = 0.01
_UPRIGHT = (1.0, 0.0, 0.0, 0.0)
_CAMERAS = {"agentview": (0.8, 0.0, 0.6)}


@dataclass(frozen=True)
class Box:
    """An axis-aligned box.

    Attributes:
        centre: m, world frame, (3,).
        half: Half size, m, (3,).
        category: Kind, as `BoxScene.category` gives it.
        owner: For a region: the fixture it belongs to, or ``"table"``.
        quaternion: What `BoxScene.object_quaternion` gives (w, x, y, z); the box stays aligned.
    """

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    category: str = "box"
    owner: str = ""
    quaternion: tuple[float, float, float, float] = _UPRIGHT


@dataclass(frozen=True)
class Slide:
    """A drawer's joint.

    Attributes:
        handle: Where the handle is at joint position 0, m, (3,).
        axis: Unit direction in which the position grows, (3,).
        open_above: The joint is open above this position, m.
        closed_below: It is closed below this one, m.
        position: Present position, m.
    """

    handle: tuple[float, float, float]
    axis: tuple[float, float, float]
    open_above: float = 0.14
    closed_below: float = 0.005
    position: float = 0.0


class BoxScene:
    """A `PrivilegedScene` that can be moved with LIBERO's actions; see the module.

    Args:
        goal: Conditions: ``on``, ``in``, ``open``, ``close``.
        objects: Movable boxes by name.
        fixtures: Boxes that stand still.
        regions: Boxes that cannot be touched.
        slides: Joints by the name of the region that they move.
        tip: Where the finger tips start, m.
        task: Instruction.
    """

    def __init__(
        self,
        goal: Sequence[Predicate],
        objects: Mapping[str, Box],
        *,
        fixtures: Mapping[str, Box] | None = None,
        regions: Mapping[str, Box] | None = None,
        slides: Mapping[str, Slide] | None = None,
        tip: ArrayLike = (0.0, 0.0, 0.3),
        task: str = "move the box",
    ) -> None:
        self.task = task
        self.goal = tuple(goal)
        self.movables = dict(objects)
        self.standing = dict(fixtures or {})
        self.regions = dict(regions or {})
        self.slides = dict(slides or {})
        self.tip: Vector = np.array(tip, dtype=np.float64)
        self.axes: Vector = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
        self.opening = _OPEN_M
        self.steps = 0

    # What moves the scene.

    def apply(self, action: ArrayLike) -> None:
        """Carries out one action (7,) in [-1, 1]: 1.0 moves the hand by 0.025 m or turns it by 0.25 rad."""
        command = np.asarray(action, dtype=np.float64)
        held, pulled = self._held(), self._pulled()
        move = _METRES_PER_UNIT * command[:3]
        self.tip = self.tip + move
        self.axes = _turn(_RADIANS_PER_UNIT * command[3:6]) @ self.axes
        closing = command[6] > 0.0
        if held is not None:
            box = self.movables[held]
            self.movables[held] = replace(box, centre=_triple(np.array(box.centre) + move))
        if pulled is not None:
            slide = self.slides[pulled]
            along = float(np.array(slide.axis) @ move)
            self.slides[pulled] = replace(slide, position=slide.position + along)
        self.opening = float(np.clip(self.opening + (-1 if closing else 1) * _FINGER_SPEED_M, 0.0, _OPEN_M))
        blocker = self._between_fingers()
        if closing and blocker is not None:
            self.opening = max(self.opening, self._width(blocker))
        if held is not None and self._held() is None:
            self._drop(held)
        self.steps += 1

    # What a scene tells.

    @property
    def objects(self) -> tuple[str, ...]:
        return tuple(self.movables)

    @property
    def fixtures(self) -> tuple[str, ...]:
        return tuple(self.standing)

    @property
    def elapsed_steps(self) -> int:
        return self.steps

    def owner(self, name: str) -> str:
        return self._box(name).owner or name

    def category(self, name: str) -> str:
        owner = self.owner(name)
        return owner if owner == "table" else self._box(owner).category

    def object_position(self, name: str) -> Vector:
        return np.array(self._box(name).centre)

    def object_quaternion(self, name: str) -> Vector:
        return np.array(self._box(name).quaternion)

    def object_bounds(self, name: str) -> tuple[Vector, Vector]:
        box = self._box(name)
        return np.array(box.centre) - box.half, np.array(box.centre) + box.half

    def object_extent(self, name: str, direction: Vector) -> tuple[float, float]:
        box = self._box(name)
        along, reach = float(np.array(box.centre) @ direction), float(np.array(box.half) @ np.abs(direction))
        return along - reach, along + reach

    def clearance(self, points: Vector, ignore: Sequence[str] = ()) -> Vector:
        boxes = [box for name, box in {**self.movables, **self.standing}.items() if name not in ignore]
        nearest = np.full(len(points), np.inf)
        for box in boxes:
            outside = np.maximum(np.abs(points - np.array(box.centre)) - box.half, 0.0)
            nearest = np.minimum(nearest, np.linalg.norm(outside, axis=1))
        return nearest

    def is_jointed(self, name: str) -> bool:
        return name in self.slides

    def joint_position(self, name: str) -> float:
        return self._slide(name).position

    def joint_axis(self, name: str) -> tuple[Vector, Vector]:
        slide = self._slide(name)
        return np.array(slide.handle), np.array(slide.axis)

    def joint_goal(self, predicate: Predicate) -> JointGoal:
        slide = self._slide(predicate.args[0])
        if predicate.name not in ("open", "close"):
            raise unknown_name("joint predicate", predicate.name, ("open", "close"))
        return (
            JointGoal(slide.open_above, 1) if predicate.name == "open" else JointGoal(slide.closed_below, -1)
        )

    def handle_position(self, name: str) -> Vector:
        slide = self._slide(name)
        position: Vector = np.array(slide.handle) + slide.position * np.array(slide.axis)
        return position

    def predicate_holds(self, predicate: Predicate) -> bool:
        if predicate.name in ("open", "close"):
            goal = self.joint_goal(predicate)
            return goal.sign * self.joint_position(predicate.args[0]) > goal.sign * goal.threshold
        moved, target = predicate.args
        (low, _), (box_low, box_high) = self.object_bounds(moved), self.object_bounds(target)
        centre = self.object_position(moved)
        above = bool(np.all((centre > box_low)[:2]) and np.all((centre < box_high)[:2]))
        if predicate.name == "in":
            return above and bool(box_low[2] < centre[2] < box_high[2])
        return above and abs(float(low[2] - box_high[2])) <= _TOUCH_M

    def is_success(self) -> bool:
        return all(self.predicate_holds(predicate) for predicate in self.goal)

    @property
    def end_effector_position(self) -> Vector:
        return self.tip.copy()

    @property
    def end_effector_axes(self) -> Vector:
        return self.axes.copy()

    @property
    def gripper_opening(self) -> float:
        return self.opening

    def is_grasped(self, name: str) -> bool:
        return self._held() == name or any(self.owner(region) == name for region in self._pulled_all())

    def is_held(self, name: str) -> bool:
        return self.is_grasped(name)  # nothing slips here

    def camera_position(self, camera: str) -> Vector:
        if camera not in _CAMERAS:
            raise unknown_name("camera", camera, _CAMERAS)
        return np.array(_CAMERAS[camera])

    # How holding works.

    def _between_fingers(self) -> str | None:
        """The movable box that reaches between the finger tips."""
        for name in self.movables:
            low, high = self.object_bounds(name)
            if np.all(self.tip >= low - _HOLD_REACH_M) and np.all(self.tip <= high + _HOLD_REACH_M):
                return name
        return None

    def _width(self, name: str) -> float:
        """Width of a box along the closing direction; the wall of one too wide to be held whole is 5 mm."""
        low, high = self.object_extent(name, self.axes[:, 0])
        return high - low if high - low < _OPEN_M else 0.005

    def _held(self) -> str | None:
        name = self._between_fingers()
        return name if name is not None and self.opening <= self._width(name) + 1e-9 else None

    def _pulled_all(self) -> list[str]:
        closed = self.opening < 0.02
        return [
            name
            for name in self.slides
            if closed and float(np.linalg.norm(self.tip - self.handle_position(name))) <= _HOLD_REACH_M
        ]

    def _pulled(self) -> str | None:
        return next(iter(self._pulled_all()), None)

    def _drop(self, name: str) -> None:
        box = self.movables[name]
        tops = [0.0]
        for other in (*self.movables, *self.standing):
            low, high = self.object_bounds(other)
            under = np.all((low < box.centre)[:2]) and np.all((high > box.centre)[:2])
            if other != name and under and high[2] <= box.centre[2]:
                tops.append(float(high[2]))
        self.movables[name] = replace(box, centre=(box.centre[0], box.centre[1], max(tops) + box.half[2]))

    def _box(self, name: str) -> Box:
        boxes = {**self.movables, **self.standing, **self.regions}
        if name not in boxes:
            raise unknown_name("object, fixture or region", name, boxes)
        return boxes[name]

    def _slide(self, name: str) -> Slide:
        if name not in self.slides:
            raise ConfigError(f"Expected a drawer that one joint moves, got {name!r}.")
        return self.slides[name]


def _triple(vector: Vector) -> tuple[float, float, float]:
    x, y, z = vector.tolist()
    return x, y, z


def _turn(vector: Vector) -> Vector:
    """Rotation matrix of a rotation vector (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rotation: Vector = np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
    return rotation
