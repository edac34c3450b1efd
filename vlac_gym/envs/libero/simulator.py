"""The one module that touches LIBERO, robosuite and MuJoCo: `LiberoSimulator`, one compiled task.

LIBERO's own `OffScreenRenderEnv` rebuilds the model from XML at every reset, renders every camera at every step,
runs the dynamics three times per physics step and hides every exception of a reset in an endless loop. This
class builds LIBERO's task once and then

- restores states instead of recompiling, and shares the compiled model between envs: `start`;
- steps the physics with robosuite's controller and nothing else: `step`; the states are bit for bit those of
  `OffScreenRenderEnv` (`mj_step1`, controller, `mj_step2` is `mj_step` with the controller's input read at the
  same state; of the repeated `mj_forward` only the part that leaves a trace is run: `control.solve_again`);
- renders a camera when asked: `render`.
"""

__all__ = ["PLACEMENT_SEED", "LiberoSimulator"]

import copy
import gc
import hashlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlac_gym.envs.gl import configure_gl
from vlac_gym.envs.libero.control import ArmControl, ContactTest, solve_again
from vlac_gym.envs.libero.importing import importing_libero
from vlac_gym.envs.libero.install import INSTALL_HINT
from vlac_gym.envs.libero.lighting import relit
from vlac_gym.envs.libero.models import CompiledModel, acquire_model, trim_memory
from vlac_gym.envs.libero.moments import Moment
from vlac_gym.envs.libero.start_cache import StartCache, start_key
from vlac_gym.envs.libero.tasks import CAMERAS, LiberoTask
from vlac_gym.envs.offscreen import Picture
from vlac_gym.envs.rotations import axis_angle_of
from vlac_gym.errors import ConfigError, DependencyNotInstalled, SimulatorError
from vlac_gym.extras import needs
from vlac_gym.types import FloatArray, Frame

_LOGGER = logging.getLogger(__name__)

PLACEMENT_SEED = 0
"""LIBERO draws the places of fixtures (cabinet, stove: within about a centimetre) from numpy's global generator
when it builds a model; they are no part of an initial state. They are drawn here from this seed, as in
LIBERO's own evaluation (`env.seed(0)`, then `reset`), so that a task looks the same in every process."""

CONTROL_HZ = 20
PHYSICS_STEPS = 25
"""Physics steps of 2 ms per control step of 50 ms (robosuite's timestep and LIBERO's control frequency)."""

MAX_PLACEMENT_ATTEMPTS = 20

_WARNING_NAMES = ("mjWARN_BADQPOS", "mjWARN_BADQVEL", "mjWARN_BADQACC")

SETTLING_ACTION = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
"""No motion, gripper open: lerobot's and openpi's LIBERO clients; verl-vla keeps the gripper at 0."""

_START_FRAMES_BYTES = 32 * 2**20

_build_lock = threading.Lock()
"""LIBERO draws places from numpy's global generator: constructions of two threads must not take turns in it."""


class _LiberoParts(NamedTuple):
    """What a task is constructed from: its class, the error of a failed placement, and `ControlEnv`'s arguments."""

    domain_class: Any
    placement_error: type[Exception]
    options: dict[str, Any]


class LiberoSimulator:
    """One LIBERO task, compiled; physics, cameras and the goal's verdict.

    Args:
        task: What to build.
        image_size: Side of rendered pictures in pixels.
        settle_steps: Control steps without motion at the start of an episode.
        start_timeout_s: Building is given up, between two attempts to place the fixtures, after this long.
        repeat_solves: Solve for the contact forces three times per physics step, as LIBERO does; see `LiberoEnv`.
        start_cache: Keeps settled starts for later processes.

    Raises:
        DependencyNotInstalled: LIBERO is not installed.
        SimulatorError: The task cannot be built.
    """

    def __init__(
        self,
        task: LiberoTask,
        *,
        image_size: int,
        settle_steps: int,
        start_timeout_s: float,
        repeat_solves: bool = True,
        start_cache: StartCache | None = None,
    ) -> None:
        configure_gl()
        self._mujoco = _import_mujoco()
        self.task = task
        self._image_size = image_size
        self._settle_steps = settle_steps
        self._repeat_solves = repeat_solves
        self._start_cache = start_cache
        self._init_states = task.load_init_states()
        built = _build_domain(self._mujoco, task, deadline_s=time.monotonic() + start_timeout_s)
        self._domain: Any = built[0]
        self._compiled: Any = built[1]
        self._is_closed = False
        self._model = self._compiled.model
        self._data = self._domain.sim.data._data
        self._robot = self._domain.robots[0]
        self._control: Any = ArmControl(self._mujoco, self._domain)
        self._domain.check_contact = ContactTest(self._domain)
        self._eef_body_id = self._model.body(self._robot.robot_model.eef_name).id
        self._built = self._take_moment()
        trim_memory()

    @property
    def domain(self) -> Any:
        """LIBERO's inner environment (a ``BDDLBaseDomain``), for privileged readers."""
        return self._domain

    def start(self, init_state_id: int) -> dict[str, Frame]:
        """Starts an episode: an official initial state, settled; nothing of what ran before remains.

        A settled state is kept, with its pictures, beside the compiled model: the next episode from it starts in
        a millisecond, in every env that shares the model.

        Args:
            init_state_id: Which of the task's initial states.

        Returns:
            Pictures already rendered of this state, by camera; add to it what you render before stepping.

        Raises:
            ConfigError: LIBERO's file holds states of another task.
        """
        key = self._start_key(init_state_id)
        with self._compiled.lock:
            starts = self._compiled.starts
            moment: Moment | None = starts.get(key)
            if moment is None:
                moment = starts[key] = self._settled(init_state_id)
                while len(starts) > _most_kept_starts(self._image_size):
                    starts.popitem(last=False)
            starts.move_to_end(key)
        self._restore(moment)
        self._control.repeats_solves = self._repeat_solves
        return moment.frames

    def step(self, action: NDArray[np.float64]) -> None:
        """Runs one control step of 50 ms.

        Args:
            action: float64 (7,), finite. Entries beyond [-1, 1] are clipped as LIBERO's controller does.

        Raises:
            SimulatorError: The physics became unstable; `start` mends it.
        """
        mujoco, model, data = self._mujoco, self._model, self._data
        self._control.set_goal(action)
        try:
            for _ in range(PHYSICS_STEPS):
                if self._control.repeats_solves:
                    solve_again(mujoco, model, data)
                self._control.apply()
                mujoco.mj_step2(model, data)
                # The first half of the next physics step; after the last one it is also what observations,
                # contacts and cameras of the reached state are computed from.
                mujoco.mj_step1(model, data)
        except mujoco.FatalError as error:
            raise SimulatorError(f"MuJoCo failed in {self.task.name}: {error}. Call reset.") from error
        self._raise_if_unstable()

    def is_success(self) -> bool:
        """LIBERO's verdict on the goal in the present state."""
        return bool(self._domain._check_success())

    def proprioception(self) -> FloatArray:
        """float32 (8,): end-effector position m (3), axis-angle rad (3), gripper joints m (2)."""
        data = self._data
        position = data.site_xpos[self._robot.eef_site_id]
        rotation = axis_angle_of(data.xquat[self._eef_body_id])
        fingers = data.qpos[self._robot._ref_gripper_joint_pos_indexes]
        return np.concatenate([position, rotation, fingers]).astype(np.float32)

    def physics_state(self) -> NDArray[np.float64]:
        """float64 (1 + nq + nv,): time, joint positions, joint velocities; a copy."""
        return np.concatenate([[self._data.time], self._data.qpos, self._data.qvel])

    def draw(self, camera: str, light: str | None = None) -> Picture:
        """Has a camera's picture drawn: uint8 (image_size, image_size, 3), RGB, upright, not mirrored.

        Args:
            camera: A key of `CAMERAS`.
            light: One of `lighting.LIGHTS` for this picture alone; None for LIBERO's own.

        Raises:
            SimulatorError: OpenGL cannot be started.
        """
        with self._compiled.lock, ExitStack() as undo:
            self._domain._post_process()  # a lit stove is a visible site of the shared model
            if light is not None:
                undo.enter_context(relit(self._model, self._data, light))
            picture: Picture = self._compiled.draw(self._data, CAMERAS[camera], self._image_size)
        return picture

    def close(self) -> None:
        """Gives the compiled model back and frees the rest; may be called twice, nothing else after it."""
        if not self._is_closed:
            self._is_closed = True
            self._compiled.release()
            # robosuite's objects refer to each other in circles and hold 0.3 GB until the collector passes by.
            self._domain = self._model = self._data = self._robot = self._control = self._compiled = None
            gc.collect()
            trim_memory()

    def _start_key(self, init_state_id: int) -> str:
        """Digest of all that a settled start and its pictures follow from, given the compiled model."""
        digest = hashlib.sha256(f"{self._settle_steps} steps, {self._image_size} pixels".encode())
        digest.update(self._built.physics.tobytes())
        digest.update(self._init_states[init_state_id].tobytes())
        return digest.hexdigest()

    def _settled(self, init_state_id: int) -> Moment:
        """A settled start, from disk if it is there."""
        if self._start_cache is None:
            return self._settle(init_state_id)
        state = self._init_states[init_state_id]
        key = start_key(self._compiled.digest(), self._built, self._settle_steps, state)
        return self._start_cache.settled(key, self._built, lambda: self._settle(init_state_id))

    def _settle(self, init_state_id: int) -> Moment:
        self._control.repeats_solves = True  # episodes begin as LIBERO's do, however they go on
        self._restore(self._built)
        self._write_state(self._init_states[init_state_id])
        for _ in range(self._settle_steps):
            self.step(np.array(SETTLING_ACTION))
        return self._take_moment()

    def _write_state(self, state: NDArray[np.float64]) -> None:
        data, nq, nv = self._data, self._model.nq, self._model.nv
        if state.shape != (1 + nq + nv,):
            raise ConfigError(
                f"Expected an initial state of {1 + nq + nv} numbers for {self.task.name}, got {state.shape}."
            )
        data.time = state[0]
        data.qpos[:] = state[1 : 1 + nq]
        data.qvel[:] = state[1 + nq :]
        self._mujoco.mj_forward(self._model, data)

    def _take_moment(self) -> Moment:
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.empty(self._mujoco.mj_stateSize(self._model, kind))
        self._mujoco.mj_getState(self._model, self._data, physics, kind)
        return Moment(physics, self._control.snapshot())

    def _restore(self, moment: Moment) -> None:
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        self._mujoco.mj_setState(self._model, self._data, moment.physics, kind)
        self._control.restore(moment.control)
        for warning in self._data.warning:
            warning.number = 0
        self._mujoco.mj_forward(self._model, self._data)
        # The forward pass has moved the solver's start; the next step must begin where it began before.
        self._mujoco.mj_setState(self._model, self._data, moment.physics, kind)

    def _raise_if_unstable(self) -> None:
        for name in _WARNING_NAMES:
            if self._data.warning[getattr(self._mujoco.mjtWarning, name)].number:
                raise SimulatorError(
                    f"The physics of {self.task.name} became unstable ({name}) at {self._data.time:.3f} s. "
                    "The episode is lost; call reset."
                )


def _most_kept_starts(image_size: int) -> int:
    return max(1, _START_FRAMES_BYTES // (len(CAMERAS) * 3 * image_size**2))


def _import_mujoco() -> Any:
    try:
        import mujoco
    except ImportError as error:
        raise DependencyNotInstalled(f"mujoco is not installed. Run: {INSTALL_HINT}") from error
    return mujoco


def _build_domain(mujoco: Any, task: LiberoTask, *, deadline_s: float) -> tuple[Any, CompiledModel]:
    """Builds LIBERO's inner environment: what `ControlEnv.__init__` and one `reset` do, without the loop."""
    with _build_lock:
        libero = _load_libero(task)
        for attempt in range(MAX_PLACEMENT_ATTEMPTS):
            if time.monotonic() > deadline_s:
                raise SimulatorError(f"Building {task.name} passed its deadline after {attempt} attempts.")
            seed = PLACEMENT_SEED + attempt
            try:
                domain, compiled = _construct(mujoco, task, libero, seed)
                if not compiled.publish():
                    compiled.release()
                    del domain, compiled
                    gc.collect()  # as in `close`
                    domain, compiled = _construct(mujoco, task, libero, seed)  # again, on the one in use
            except libero.placement_error as error:
                _LOGGER.warning("Placement %d of %s failed: %s", attempt, task.name, error)
                continue
            return domain, compiled
    raise SimulatorError(
        f"The fixtures of {task.name} could not be placed in {MAX_PLACEMENT_ATTEMPTS} attempts."
    )


def _construct(mujoco: Any, task: LiberoTask, libero: _LiberoParts, seed: int) -> tuple[Any, CompiledModel]:
    """Constructs a task with its fixtures placed by a seed; the model is the caller's to release."""
    definition = task.bddl_file.read_text(encoding="utf-8")
    domain = libero.domain_class.__new__(libero.domain_class)
    start = _ModelStart(mujoco, domain, recipe=f"seed {seed}\n{definition}")
    domain._initialize_sim = start
    with ExitStack() as undo:
        undo.callback(start.release)
        with start.construction, _numpy_seed(seed):
            domain.__init__(str(task.bddl_file), **copy.deepcopy(libero.options))
            domain.sim.forward()
            domain.visualize(vis_settings=dict.fromkeys(domain._visualizations, False))
            domain._post_process()  # a stove that is off, or on, as it stands now
        undo.pop_all()
    return domain, start.compiled


def _load_libero(task: LiberoTask) -> _LiberoParts:
    """Imports LIBERO and finds what a task is constructed from."""
    try:
        with importing_libero():
            import robosuite
            from libero.libero.envs import TASK_MAPPING
            from libero.libero.envs import bddl_utils as bddl
            from robosuite.utils.errors import RandomizationError
    except ImportError as error:
        raise DependencyNotInstalled(f"LIBERO cannot be imported ({error}). Run: {INSTALL_HINT}") from error
    options = {
        "robots": ["Panda"],
        "controller_configs": robosuite.load_controller_config(default_controller="OSC_POSE"),
        "gripper_types": "default",
        "initialization_noise": None,
        "use_camera_obs": False,
        "has_renderer": False,
        "has_offscreen_renderer": False,
        "control_freq": CONTROL_HZ,
        "ignore_done": True,
        "hard_reset": False,
    }
    problem = bddl.get_problem_info(str(task.bddl_file))["problem_name"]
    return _LiberoParts(TASK_MAPPING[problem], RandomizationError, options)


class _ModelStart:
    """Stands in for `MujocoEnv._initialize_sim` while a domain is constructed: shares compiled models."""

    def __init__(self, mujoco: Any, domain: Any, recipe: str) -> None:
        self.construction = ExitStack()
        self.compiled: Any = None
        self._mujoco = mujoco
        self._domain = domain
        self._recipe = recipe

    def __call__(self, xml_string: str | None = None) -> None:
        with needs("LIBERO", "libero"):
            from robosuite.utils.binding_utils import MjSim

        domain = self._domain
        self.compiled = acquire_model(self._mujoco, xml_string or domain.model.get_xml(), self._recipe)
        self.construction.enter_context(self.compiled.constructing())
        domain.sim = MjSim(self.compiled.model)
        domain.sim.forward()
        domain.initialize_time(domain.control_freq)

    def release(self) -> None:
        if self.compiled is not None:
            self.compiled.release()


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seeds numpy's global generator, which LIBERO draws from, and gives it back as it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
