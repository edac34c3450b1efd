"""N copies of a recorded LIBERO task in mujoco-warp, driven by LIBERO's controller: `Worlds`, and what it is made from.

Needs mujoco-warp and the MuJoCo that it goes with, and a folder of gpu_recording.py; this package, but not LIBERO.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import warp as wp

from vlac_gym.envs.warp import kernels

PHYSICS_STEPS = 25
"""Of 2 ms each, per env step of 50 ms."""

MESH_PLACES = ("geom_aabb", "geom_pos", "geom_quat", "geom_rbound", "geom_size")
START_ARRAYS = ("qpos", "qvel", "qacc_warmstart", "goal_position", "goal_rotation", "grip")


@dataclass(frozen=True)
class Room:
    """How many contacts, constraints and convex pairs a world may have; more are dropped and reported."""

    contacts: int = 160
    constraints: int = 480
    convex: int = 96


@dataclass(frozen=True)
class Recording:
    """A folder of gpu_recording.py, read.

    Attributes:
        task: `task.json`.
        model: The scene, compiled by the installed MuJoCo, with the recorded numbers written into it.
        changed: Arrays that the installed MuJoCo had compiled to other numbers, with the largest difference.
        starts: `starts.npz`.
        episodes: Of `episodes.npz`, one mapping each.
    """

    task: dict[str, Any]
    model: Any
    changed: dict[str, float]
    starts: dict[str, np.ndarray]
    episodes: list[dict[str, np.ndarray]]


def read_recording(folder: Path) -> Recording:
    """Reads a task's folder and compiles its scene."""
    task = json.loads((folder / "task.json").read_text())
    model = mujoco.MjModel.from_xml_path(str(folder / "scene.xml"))
    sizes = {name: int(getattr(model, name)) for name in task["sizes"]}
    if sizes != task["sizes"]:
        raise SystemExit(
            f"MuJoCo {mujoco.__version__} compiles {folder} to {sizes}, recorded: {task['sizes']}."
        )
    with np.load(folder / "model.npz") as arrays:
        changed = write_numbers(model, dict(arrays))
    with np.load(folder / "starts.npz") as arrays:
        starts = dict(arrays)
    with np.load(folder / "episodes.npz") as arrays:
        split = [(*name.rsplit("_", 1), value) for name, value in arrays.items()]
    episodes: list[dict[str, np.ndarray]] = [
        {} for _ in range(1 + max((int(i) for _, i, _ in split), default=-1))
    ]
    for name, i, value in split:
        episodes[int(i)][name] = value
    return Recording(task, model, changed, starts, episodes)


def write_numbers(model: Any, arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """Writes recorded floating-point numbers into a model; returns which arrays differed by more than rounding.

    Where a mesh's geom lies and how large it is goes with the mesh's vertices: versions turn both to axes of their own.
    """
    meshes = model.geom_type == int(mujoco.mjtGeom.mjGEOM_MESH)
    changed = {}
    for name, value in arrays.items():
        here = getattr(model, name, None)
        if not isinstance(here, np.ndarray) or here.dtype.kind != "f" or here.shape != value.shape:
            continue
        rows = ~meshes if name in MESH_PLACES else slice(None)
        apart = float(np.abs(here[rows] - value[rows]).max(initial=0.0))
        if apart > 1e-7:
            changed[name] = apart
        here[rows] = value[rows]
    return changed


class Worlds:
    """N worlds of one task on one device; all start, step and are judged together.

    Args:
        recording: The task.
        num_worlds: N.
        half_distances: Report the distance of a box's face to a box as MuJoCo up to 3.3 did, halved.
        primitive_boxes: Use mujoco-warp's own box-box test instead of the general convex one.
        room: See `Room`.
    """

    def __init__(
        self,
        recording: Recording,
        num_worlds: int,
        *,
        half_distances: bool = True,
        primitive_boxes: bool = True,
        room: Room = Room(),
    ) -> None:
        self.recording, self.num_worlds, self.room = recording, num_worlds, room
        mj_model = recording.model
        if primitive_boxes:
            mj_model = copy.copy(mj_model)
            mj_model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_NATIVECCD
        self.model = mjw.put_model(mj_model)
        self.data = mjw.make_data(
            mj_model, nworld=num_worlds, nconmax=room.contacts, njmax=room.constraints, nccdmax=room.convex
        )
        if half_distances:
            self.model.callback.contactfilter = _halve_distances
        task = recording.task
        self.actions = wp.zeros((num_worlds, 7), dtype=float)
        self._arm = _arm_of(mj_model, task)
        self._address = wp.array(_inertia_addresses(mj_model, task["arm_dofs"]), dtype=int)
        self._goal_position = wp.zeros(num_worlds, dtype=wp.vec3)
        self._goal_rotation = wp.zeros(num_worlds, dtype=wp.mat33)
        self._finger = wp.zeros(num_worlds, dtype=wp.vec2)
        self._finger_change = wp.zeros(num_worlds, dtype=wp.vec2)
        side = np.zeros(mj_model.ngeom, np.int32)
        for number, geoms in enumerate(task["goal_geoms"]):
            side[geoms] = number + 1
        self._side = wp.array(side, dtype=int)
        self._touching = wp.zeros(num_worlds, dtype=int)
        self._success = wp.zeros(num_worlds, dtype=int)
        self._graph: Any = None

    def start(self, states: dict[str, np.ndarray]) -> None:
        """Puts every world into a state: arrays of N rows, of the names in `START_ARRAYS`."""
        mjw.reset_data(self.model, self.data)
        for name in ("qpos", "qvel", "qacc_warmstart"):
            getattr(self.data, name).assign(states[name].astype(np.float32))
        self._goal_position.assign(states["goal_position"].astype(np.float32))
        self._goal_rotation.assign(states["goal_rotation"].astype(np.float32))
        self._finger.assign(states["grip"].astype(np.float32))
        mjw.step1(self.model, self.data)

    def step(self, actions: np.ndarray | None = None) -> None:
        """One env step of all worlds; from the second on a captured graph, where the device has them.

        Args:
            actions: (N, 7), or None for what is in `self.actions`.
        """
        if actions is not None:
            self.actions.assign(actions.astype(np.float32))
        if not wp.get_device().is_cuda:
            self._step()
        elif self._graph is None:
            self._step()  # loads the kernels
            with wp.ScopedCapture() as capture:
                self._step()
            self._graph = capture.graph
        else:
            wp.capture_launch(self._graph)

    def _step(self) -> None:
        d, n = self.data, self.num_worlds
        goals = (self._goal_position, self._goal_rotation, self._finger_change)
        fixed = (self._arm, self._address, d.qpos, d.qvel, d.M, d.qfrc_bias, d.cdof, d.subtree_com)
        fixed += (d.site_xpos, d.site_xmat)
        wp.launch(kernels.set_goal, n, [self._arm, self.actions, d.site_xpos, d.site_xmat, *goals])
        for _ in range(PHYSICS_STEPS):
            wp.launch(kernels.control, n, [*fixed, *goals, self._finger, d.ctrl])
            self.advance()
        self._judge()

    def advance(self) -> None:
        """One physics step with the controls in `data.ctrl`; afterwards `data` describes the reached state."""
        mjw.step2(self.model, self.data)
        mjw.step1(self.model, self.data)

    def _judge(self) -> None:
        d, (moved, target) = self.data, self.recording.task["goal_bodies"]
        touching = [d.nacon, self._side, d.contact.geom, d.contact.worldid, self._touching]
        wp.launch(kernels.find_touching, d.naconmax, touching)
        wp.launch(kernels.judge_on, self.num_worlds, [moved, target, d.xpos, self._touching, self._success])

    def success(self) -> np.ndarray:
        """Whether the goal held after the last step: bool (N,)."""
        return self._success.numpy().astype(bool)

    def problems(self) -> dict[str, int]:
        """Worlds with numbers that are not finite, and worlds in which contacts or constraints found no room."""
        finite = np.isfinite(self.data.qpos.numpy()).all(axis=1)
        return {
            "not finite": int((~finite).sum()),
            "overflow": int((self.data.overflow.numpy() != 0).sum()),
            "contacts": int(self.data.nacon.numpy()[0]),
            "most constraints": int(self.data.nefc.numpy().max()),
        }


def _halve_distances(model: Any, data: Any) -> None:
    contact = data.contact
    geoms = (model.geom_type, int(mjw.GeomType.BOX), data.geom_xmat)
    found = (contact.geom, contact.worldid, contact.frame, contact.dist)
    wp.launch(kernels.halve_face_distances, data.naconmax, [data.nacon, *geoms, *found])


def _arm_of(model: Any, task: dict[str, Any]) -> Any:
    arm = kernels.Arm()
    arm.site = task["site"]
    arm.root = int(model.body_rootid[model.site_bodyid[task["site"]]])
    arm.first_qpos, arm.first_dof = task["arm_qpos"][0], task["arm_dofs"][0]
    arm.first_actuator, arm.first_finger = task["arm_actuators"][0], task["gripper_actuators"][0]
    for name in ("kp", "kd", "action_scale"):
        setattr(arm, name, kernels.vec6(*task[name]))
    arm.initial_joint = kernels.vec7(*task["initial_joint"])
    arm.torque_low, arm.torque_high = (kernels.vec7(*limit) for limit in task["torque_limits"])
    arm.finger_bias, arm.finger_weight = wp.vec2(*task["gripper_bias"]), wp.vec2(*task["gripper_weight"])
    arm.finger_speed = wp.vec2(*task["gripper_speed"])
    return arm


def _inertia_addresses(model: Any, dofs: list[int]) -> np.ndarray:
    """Where the arm's inertia is in the sparse matrix: int32 (7, 7), its lower half."""
    addresses = np.zeros((len(dofs), len(dofs)), np.int32)
    for i, row in enumerate(dofs):
        begin, count = model.M_rowadr[row], model.M_rownnz[row]
        columns = list(model.M_colind[begin : begin + count])
        for j, column in enumerate(dofs[: i + 1]):
            addresses[i, j] = begin + columns.index(column)
    return addresses
