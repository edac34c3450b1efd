"""N copies of LIBERO's tasks on a GPU, driven by LIBERO's controller: `WarpWorlds`, `Room`, `WorldPhysics`."""

__all__ = ["PHYSICS_STEPS", "Room", "WarpWorlds", "WorldPhysics"]

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlac_gym.envs.rotations import axis_angle_of
from vlac_gym.envs.warp.scene_files import GET_WARP, START_ARRAYS, SceneFiles
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.extras import needs

with needs("Simulating on a GPU", get=GET_WARP):
    import mujoco
    import mujoco_warp as mjw
    import warp as wp

from vlac_gym.envs.warp import kernels
from vlac_gym.envs.warp.goals import Goals
from vlac_gym.envs.warp.pictures import Pictures

PHYSICS_STEPS = 25
"""Of 2 ms each, per env step of 50 ms."""

_NO_ROOM = int(
    mjw.OverflowType.NEFC
    | mjw.OverflowType.NJMAX_NNZ
    | mjw.OverflowType.BROADPHASE
    | mjw.OverflowType.NARROWPHASE
    | mjw.OverflowType.CCD
)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _on_device(
    method: Callable[Concatenate["WarpWorlds", _P], _R],
) -> Callable[Concatenate["WarpWorlds", _P], _R]:
    """Makes the worlds' device and stream warp's current ones during a call: mujoco-warp launches its kernels there."""

    @wraps(method)
    def call(self: "WarpWorlds", *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with wp.ScopedDevice(self.device), wp.ScopedStream(self._stream, sync_enter=False):
            return method(self, *args, **kwargs)

    return call  # type: ignore[return-value]


@dataclass(frozen=True)
class Room:
    """How many contacts, constraints and convex pairs a world may have on average; more are dropped."""

    contacts: int = 256
    constraints: int = 768
    convex: int = 256


@dataclass(frozen=True)
class WorldPhysics:
    """In what the worlds' physics differs from what mujoco-warp makes of a scene.

    The solver stops at its limits, whether it has converged or not, and goes on from there in the next physics step. A
    solve of LIBERO's scenes takes 1.6 iterations on average, but all worlds wait for the slowest one, which takes a
    dozen: these limits make an env step of 768 worlds 1.5 times as fast as the scene's own (100 and 50), and as many
    replayed episodes succeed (docs/gpu_simulation.md).

    Attributes:
        half_distances: Halve the distances of boxes' faces.
        primitive_boxes: Use the primitive test of boxes.
        iterations: Of the solver, Newton's method, per physics step; None for the scene's own.
        line_search: Iterations of each one's line search; None for the scene's own.

    Raises:
        ConfigError: A limit is below 1.
    """

    half_distances: bool = True
    primitive_boxes: bool = True
    iterations: int | None = 5
    line_search: int | None = 10

    def __post_init__(self) -> None:
        for name in ("iterations", "line_search"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ConfigError(f"Expected {name} >= 1, or None for the scene's own, got {limit}.")

    def applied_to(self, scene_model: Any) -> Any:
        """A copy of a scene's ``MjModel`` with these options, but for the distances, which no model holds."""
        model = copy.copy(scene_model)
        if self.primitive_boxes:
            model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_NATIVECCD
        if self.iterations is not None:
            model.opt.iterations = self.iterations
        if self.line_search is not None:
            model.opt.ls_iterations = self.line_search
        return model


class WarpWorlds:
    """N worlds on one device; all move together, and each may be held or restarted.

    They may be of several tasks of one `SceneFiles.batch_key`: each world has its own task's fixtures, starts and goal.
    On a GPU they have a stream of their own.

    Contacts between boxes are tested by mujoco-warp's primitive test, and the distance of a box's face is halved: up to
    MuJoCo 3.3 it was reported so, and LIBERO's recorded scenes rest on it (docs/gpu_simulation.md). Sums of contacts
    run in no fixed order, so that the same actions do not give the same bits twice.

    Args:
        parts: Tasks, and how many worlds each has; the worlds are in this order, N together.
        cameras: Names in the model of the cameras that `pictures` will be asked for.
        image_size: Side of the pictures in pixels.
        room: See `Room`.
        physics: See `WorldPhysics`.
        as_tensors: Give `pictures` as torch tensors on the device.
        device: Warp's name of it: ``"cuda:0"``, or ``"cpu"``, which takes 0.1 s for an env step of one world.

    Raises:
        ConfigError: There is no such device, or the tasks differ in more than their fixtures' places, starts and goals.
    """

    def __init__(
        self,
        parts: Sequence[tuple[SceneFiles, int]],
        *,
        cameras: Sequence[str] = (),
        image_size: int = 256,
        room: Room = Room(),
        physics: WorldPhysics = WorldPhysics(),
        device: str = "cuda:0",
        as_tensors: bool = False,
    ) -> None:
        self.device = _known_device(device)
        self.scenes, counts = zip(*parts, strict=True)
        _check_one_batch(self.scenes)
        self.num_worlds = sum(counts)
        self._scene_of_world = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._as_tensors = as_tensors
        self._stream = wp.Stream(device) if wp.get_device(device).is_cuda else None
        with wp.ScopedDevice(device), wp.ScopedStream(self._stream):
            self._make(cameras, image_size, room, physics)
        # Whoever is not started yet is simulated with the others, and must not lie in a heap meanwhile.
        self.start(np.zeros(self.num_worlds, np.int32))

    def _make(self, cameras: Sequence[str], image_size: int, room: Room, physics: WorldPhysics) -> None:
        num_worlds, scene_of_world = self.num_worlds, self._scene_of_world
        scene = self.scenes[0]
        mj_model = physics.applied_to(scene.model)
        self.model = mjw.put_model(mj_model)
        self.model.opt.warn_overflow = 0  # printed by every thread at every step; `crowded` tells instead
        self.data = mjw.make_data(
            mj_model, nworld=num_worlds, nconmax=room.contacts, njmax=room.constraints, nccdmax=room.convex
        )
        _place_bodies(self.model, self.data, [each.model for each in self.scenes], scene_of_world)
        if physics.half_distances:
            self.model.callback.contactfilter = _halve_distances
        self.actions = wp.zeros((num_worlds, 7), dtype=float)
        self._active = wp.full(num_worlds, 1, dtype=int)
        self._failed = wp.zeros(num_worlds, dtype=int)
        self._finger_change = wp.zeros(num_worlds, dtype=wp.vec2)
        self._arm = _arm_of(mj_model, scene.task)
        self._address = wp.array(_inertia_addresses(mj_model, scene.task["arm_dofs"]), dtype=int)
        self._starts = _moment(
            {name: np.concatenate([each.starts[name] for each in self.scenes]) for name in START_ARRAYS}
        )
        before = np.cumsum([0, *(len(each.starts["qpos"]) for each in self.scenes[:-1])])
        self._first_starts = before[scene_of_world]
        blank = {name: np.zeros((num_worlds, *scene.starts[name].shape[1:])) for name in START_ARRAYS}
        self._kept = _moment(blank)
        self._now = _moment(blank)
        self._now.qpos, self._now.qvel = self.data.qpos, self.data.qvel
        self._now.qacc_warmstart = self.data.qacc_warmstart
        self._goals = Goals(mj_model.ngeom, [each.task for each in self.scenes], scene_of_world)
        self._pictures = Pictures(scene.model, num_worlds, image_size, cameras) if cameras else None
        self._graph: Any = None
        self._is_stale = np.ones(num_worlds, np.bool_)  # whose positions alone are what they should be
        self._has_moved = False  # since then, so that failed worlds were put back, too

    @_on_device
    def start(self, rows: NDArray[np.int32]) -> None:
        """Puts worlds into settled starts.

        Args:
            rows: int32 (N,), each world's initial state among its task's; -1 leaves a world as it is.
        """
        sources = wp.array(np.where(rows >= 0, rows + self._first_starts, -1).astype(np.int32), dtype=int)
        given = [sources, self._starts, self._now, self._kept, self._failed]
        wp.launch(kernels.start_worlds, self.num_worlds, given)
        self._refresh()

    @_on_device
    def start_from(self, states: Mapping[str, NDArray[Any]]) -> None:
        """Puts every world into a state of its own: arrays of N rows, of the names in `START_ARRAYS`."""
        given = [_moment(states), self._now, self._kept, self._failed]
        rows = wp.array(np.arange(self.num_worlds, dtype=np.int32), dtype=int)
        wp.launch(kernels.start_worlds, self.num_worlds, [rows, *given])
        self._refresh()

    @_on_device
    def step(self, actions: NDArray[Any] | None = None, active: NDArray[np.bool_] | None = None) -> None:
        """Begins one env step, from the second on a captured graph, where the device has them; all that reads waits.

        A world whose numbers stop being finite is put back to where it was before, and counts as failed until it is
        started anew.

        Args:
            actions: (N, 7), in [-1, 1], or None for what is in `actions`.
            active: bool (N,), the worlds that move, all others are held; None for all.
        """
        if actions is not None:
            self.actions.assign(actions.astype(np.float32))
        chosen = np.ones(self.num_worlds, np.bool_) if active is None else active
        if (chosen & self._is_stale).any():
            self._settle()
        self._active.assign(chosen.astype(np.int32))
        if not wp.get_device().is_cuda:
            self._step()
        elif self._graph is None:
            self._step()  # loads the kernels
            with wp.ScopedCapture() as capture:
                self._step()
            self._graph = capture.graph
        else:
            wp.capture_launch(self._graph)
        self._is_stale, self._has_moved = ~chosen, True

    def _step(self) -> None:
        d, n, now = self.data, self.num_worlds, self._now
        goals = (now.goal_position, now.goal_rotation, self._finger_change)
        fixed = [self._arm, self._address, d.qpos, d.qvel, d.M, d.qfrc_bias, d.cdof, d.subtree_com]
        fixed += [d.site_xpos, d.site_xmat]
        wp.launch(kernels.set_goal, n, [self._arm, self.actions, d.site_xpos, d.site_xmat, *goals])
        for _ in range(PHYSICS_STEPS):
            wp.launch(kernels.control, n, [*fixed, *goals, now.grip, d.ctrl])
            self.advance()
        self._goals.judge(d)
        wp.launch(kernels.keep_or_restore, n, [self._active, now, self._kept, self._failed])

    @_on_device
    def advance(self) -> None:
        """One physics step with the controls in `data.ctrl`; afterwards `data` describes the reached state."""
        mjw.step2(self.model, self.data)
        mjw.step1(self.model, self.data)

    @_on_device
    def success(self) -> NDArray[np.bool_]:
        """bool (N,): whether the goal held after the last step, of the worlds that moved."""
        verdicts: NDArray[np.bool_] = _read(self._goals.success).astype(bool)
        return verdicts

    @_on_device
    def failed(self) -> NDArray[np.bool_]:
        """bool (N,): whose numbers stopped being finite since their start."""
        failed: NDArray[np.bool_] = _read(self._failed).astype(bool)
        return failed

    @_on_device
    def crowded(self) -> NDArray[np.bool_]:
        """bool (N,): in which contacts or constraints found no `Room`, ever."""
        crowded: NDArray[np.bool_] = (_read(self.data.overflow) & _NO_ROOM) != 0
        return crowded

    @_on_device
    def proprioception(self) -> NDArray[np.float32]:
        """float32 (N, 8): end-effector position m (3), axis-angle rad (3), gripper joints m (2), as `LiberoEnv`'s."""
        self._settle()
        task, d = self.scenes[0].task, self.data
        places = _read(d.site_xpos)[:, task["site"]]
        turns = np.array([axis_angle_of(q) for q in _read(d.xquat)[:, task["eef_body"]].astype(np.float64)])
        fingers = _read(d.qpos)[:, task["finger_qpos"]]
        return np.concatenate([places, turns, fingers], axis=1).astype(np.float32)

    @_on_device
    def pictures(self, cameras: Sequence[str]) -> list[Any]:
        """uint8 (N, image_size, image_size, 3) of each camera, RGB, upright; the same cameras' next call overwrites.

        As torch tensors they have memory of their own.
        """
        assert self._pictures is not None
        self._settle()
        if self._as_tensors:
            return self._pictures.tensors(self.model, self.data, cameras)
        pictures = self._pictures.read(self.model, self.data, cameras)
        return [pictures[:, k] for k in range(len(cameras))]

    @_on_device
    def physics_state(self) -> dict[str, NDArray[np.float32]]:
        """`qpos` and `qvel` of all worlds, float32 (N, …)."""
        return {"qpos": _read(self.data.qpos), "qvel": _read(self.data.qvel)}

    @_on_device
    def problems(self) -> dict[str, int]:
        """Failed worlds, worlds in which contacts or constraints found no room, and how much of it was needed."""
        return {
            "failed": int(self.failed().sum()),
            "overflow": int(self.crowded().sum()),
            "contacts": int(_read(self.data.nacon)[0]),
            "most constraints": int(_read(self.data.nefc).max()),
        }

    def _settle(self) -> None:
        """Computes what follows from the positions, of worlds that were held or put back too."""
        if self._has_moved:
            self._is_stale |= self.failed()
            self._has_moved = False
        if self._is_stale.any():
            self._refresh()

    def _refresh(self) -> None:
        mjw.step1(self.model, self.data)
        self._is_stale[:], self._has_moved = False, False


def _read(array: Any) -> NDArray[Any]:
    """On the host, once the current stream is done; `array.numpy()` would wait for all streams."""
    host = array.to("cpu")
    wp.synchronize_stream()
    values: NDArray[Any] = host.numpy()
    return values


def _known_device(name: str) -> str:
    known = [str(device) for device in wp.get_devices()]
    if name not in known:
        raise unknown_name("device of warp", name, known)
    return name


def _check_one_batch(scenes: Sequence[SceneFiles]) -> None:
    first, *others = [f"{scene.task['suite']} {scene.task['task_id']}" for scene in scenes]
    for name, scene in zip(others, scenes[1:], strict=True):
        if scene.batch_key != scenes[0].batch_key:
            raise ConfigError(
                "Expected tasks that differ only in where bodies stand, starts and goals, got "
                f"{first} and {name}. Make `WarpWorlds` of each."
            )


def _halve_distances(model: Any, data: Any) -> None:
    contact = data.contact
    geoms = (model.geom_type, int(mjw.GeomType.BOX), data.geom_xmat)
    found = (contact.geom, contact.worldid, contact.frame, contact.dist)
    wp.launch(kernels.halve_face_distances, data.naconmax, [data.nacon, *geoms, *found])


def _place_bodies(model: Any, data: Any, mj_models: Sequence[Any], scene_of_world: NDArray[np.int32]) -> None:
    """Puts each world's bodies where its own scene has them, and fixtures' geoms, which mujoco-warp never moves."""
    model.body_pos = wp.array(np.stack([each.body_pos for each in mj_models])[scene_of_world], dtype=wp.vec3)
    model.body_quat = wp.array(
        np.stack([each.body_quat for each in mj_models])[scene_of_world], dtype=wp.quat
    )
    states = [mujoco.MjData(each) for each in mj_models]
    for mj_model, state in zip(mj_models, states, strict=True):
        mujoco.mj_kinematics(mj_model, state)
    data.geom_xpos.assign(np.stack([state.geom_xpos for state in states])[scene_of_world])
    turns = np.stack([state.geom_xmat.reshape(-1, 3, 3) for state in states])
    data.geom_xmat.assign(turns[scene_of_world])


def _moment(states: Mapping[str, NDArray[Any]]) -> Any:
    moment = kernels.WorldMoments()
    types = {"goal_position": wp.vec3, "goal_rotation": wp.mat33, "grip": wp.vec2}
    for name in START_ARRAYS:
        rows = np.ascontiguousarray(states[name], dtype=np.float32)
        setattr(moment, name, wp.array(rows, dtype=types.get(name, float)))
    return moment


def _arm_of(model: Any, task: Mapping[str, Any]) -> Any:
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


def _inertia_addresses(model: Any, dofs: Sequence[int]) -> NDArray[np.int32]:
    """Where the arm's inertia is in the sparse matrix: int32 (7, 7), its lower half."""
    addresses = np.zeros((len(dofs), len(dofs)), np.int32)
    for i, row in enumerate(dofs):
        begin, count = model.M_rowadr[row], model.M_rownnz[row]
        columns = list(model.M_colind[begin : begin + count])
        for j, column in enumerate(dofs[: i + 1]):
            addresses[i, j] = begin + columns.index(column)
    return addresses
