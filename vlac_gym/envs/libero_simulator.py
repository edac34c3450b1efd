"""The one module that touches LIBERO, robosuite and MuJoCo: `LiberoSimulator`, one compiled task.

LIBERO's own `OffScreenRenderEnv` rebuilds the model from XML at every reset, renders every camera at every step,
runs the dynamics three times per physics step and hides every exception of a reset in an endless loop. This
class builds LIBERO's task once and then

- restores states instead of recompiling: `restore`;
- steps the physics with robosuite's controller and nothing else: `step`; the states are bit for bit those of
  `OffScreenRenderEnv` (`mj_step1`, controller, `mj_step2` is `mj_step` with the controller's input read at the
  same state; `mj_forward` repeated in between changes nothing since MuJoCo 3.1);
- renders a camera when asked: `render`.
"""

__all__ = ["PLACEMENT_SEED", "LiberoSimulator"]

import copy
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.envs.gl import configure_gl
from vlac_gym.envs.libero_control import ArmControl, ContactTest
from vlac_gym.envs.libero_install import INSTALL_HINT, find_libero
from vlac_gym.envs.libero_tasks import CAMERAS, LiberoTask
from vlac_gym.errors import ConfigError, DependencyNotInstalled, SimulatorError
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


class LiberoSimulator:
    """One LIBERO task, compiled; physics, cameras and the goal's verdict.

    Args:
        task: What to build.
        image_size: Side of rendered pictures in pixels.
        start_timeout_s: Building is given up, between two attempts to place the fixtures, after this long.

    Raises:
        DependencyNotInstalled: LIBERO is not installed.
        SimulatorError: The task cannot be built.
    """

    def __init__(self, task: LiberoTask, *, image_size: int, start_timeout_s: float) -> None:
        configure_gl()
        self._mujoco = _import_mujoco()
        self.task = task
        self._image_size = image_size
        self._renderer: Any = None
        self._scene_option: Any = None
        self._domain = _build_domain(task, deadline_s=time.monotonic() + start_timeout_s)
        self._model = self._domain.sim.model._model
        self._data = self._domain.sim.data._data
        self._robot = self._domain.robots[0]
        self._control = ArmControl(self._mujoco, self._domain)
        self._domain.check_contact = ContactTest(self._domain)
        self._eef_body_id = self._model.body(self._robot.robot_model.eef_name).id
        self._initial_physics = self._copy_physics()

    @property
    def domain(self) -> Any:
        """LIBERO's inner environment (a ``BDDLBaseDomain``), for privileged readers."""
        return self._domain

    def restore(self, init_state: NDArray[np.float64]) -> None:
        """Puts the simulation into an initial state; nothing of what ran before remains.

        Args:
            init_state: float64 (1 + nq + nv,): time, joint positions, joint velocities.

        Raises:
            ConfigError: The state has another length: it belongs to another task.
        """
        model, data = self._model, self._data
        expected = 1 + model.nq + model.nv
        if init_state.shape != (expected,):
            raise ConfigError(
                f"Expected an initial state of {expected} numbers for {self.task.name}, "
                f"got shape {init_state.shape}."
            )
        self._mujoco.mj_setState(
            model, data, self._initial_physics, self._mujoco.mjtState.mjSTATE_INTEGRATION
        )
        for warning in data.warning:
            warning.number = 0
        self._control.reset()
        data.time = init_state[0]
        data.qpos[:] = init_state[1 : 1 + model.nq]
        data.qvel[:] = init_state[1 + model.nq :]
        self._mujoco.mj_forward(model, data)

    def step(self, action: NDArray[np.float64]) -> None:
        """Runs one control step of 50 ms.

        Args:
            action: float64 (7,), finite. Entries beyond [-1, 1] are clipped as LIBERO's controller does.

        Raises:
            SimulatorError: The physics became unstable; `restore` mends it.
        """
        mujoco, model, data = self._mujoco, self._model, self._data
        self._control.set_goal(action)
        try:
            for _ in range(PHYSICS_STEPS):
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
        rotation = _axis_angle(data.xquat[self._eef_body_id])
        fingers = data.qpos[self._robot._ref_gripper_joint_pos_indexes]
        return np.concatenate([position, rotation, fingers]).astype(np.float32)

    def physics_state(self) -> NDArray[np.float64]:
        """float64 (1 + nq + nv,): time, joint positions, joint velocities; a copy."""
        return np.concatenate([[self._data.time], self._data.qpos, self._data.qvel])

    def render(self, camera: str) -> Frame:
        """Renders a camera: uint8 (image_size, image_size, 3), RGB, upright, not mirrored.

        Args:
            camera: A key of `CAMERAS`.

        Raises:
            SimulatorError: OpenGL cannot be started.
        """
        if self._renderer is None:
            self._renderer = self._start_renderer()
        self._domain._post_process()  # a lit stove is a visible site, switched here
        self._renderer.update_scene(self._data, camera=CAMERAS[camera], scene_option=self._scene_option)
        frame: Frame = self._renderer.render()
        return np.ascontiguousarray(frame)

    def close(self) -> None:
        """Frees the renderer and the model; may be called twice."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _start_renderer(self) -> Any:
        mujoco = self._mujoco
        # What robosuite's renderer shows: visual meshes (group 1), no collision meshes (group 0).
        self._scene_option = mujoco.MjvOption()
        self._scene_option.geomgroup[0] = 0
        self._scene_option.geomgroup[1] = 1
        screen = self._model.vis.global_
        screen.offwidth = max(screen.offwidth, self._image_size)
        screen.offheight = max(screen.offheight, self._image_size)
        try:
            return mujoco.Renderer(self._model, height=self._image_size, width=self._image_size)
        except (RuntimeError, AttributeError, mujoco.FatalError) as error:
            raise SimulatorError(
                f"OpenGL cannot be started with MUJOCO_GL={configure_gl()}: {error}. See docs/libero.md."
            ) from error

    def _copy_physics(self) -> NDArray[np.float64]:
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(self._mujoco.mj_stateSize(self._model, kind))
        self._mujoco.mj_getState(self._model, self._data, state, kind)
        return state

    def _raise_if_unstable(self) -> None:
        for name in _WARNING_NAMES:
            if self._data.warning[getattr(self._mujoco.mjtWarning, name)].number:
                raise SimulatorError(
                    f"The physics of {self.task.name} became unstable ({name}) at {self._data.time:.3f} s. "
                    "The episode is lost; call reset."
                )


def _import_mujoco() -> Any:
    try:
        import mujoco
    except ImportError as error:
        raise DependencyNotInstalled(f"mujoco is not installed. Run: {INSTALL_HINT}") from error
    return mujoco


def _build_domain(task: LiberoTask, *, deadline_s: float) -> Any:
    """Builds LIBERO's inner environment: what `ControlEnv.__init__` and one `reset` do, without the loop."""
    find_libero().prepare_import()
    logging.getLogger("robosuite_logs").setLevel(
        logging.ERROR
    )  # it advises on its macro file at every import
    try:
        import robosuite
        from libero.libero.envs import TASK_MAPPING
        from libero.libero.envs import bddl_utils as bddl
        from robosuite.utils.errors import RandomizationError
    except ImportError as error:
        raise DependencyNotInstalled(f"LIBERO cannot be imported ({error}). Run: {INSTALL_HINT}") from error
    file = str(task.bddl_file)
    domain_class = TASK_MAPPING[bddl.get_problem_info(file)["problem_name"]]
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
    for attempt in range(MAX_PLACEMENT_ATTEMPTS):
        if time.monotonic() > deadline_s:
            raise SimulatorError(f"Building {task.name} passed its deadline after {attempt} attempts.")
        try:
            with _numpy_seed(PLACEMENT_SEED + attempt):
                domain = domain_class(file, **copy.deepcopy(options))
        except RandomizationError as error:
            _LOGGER.warning("Placement %d of %s failed: %s", attempt, task.name, error)
            continue
        domain.sim.forward()
        domain.visualize(vis_settings=dict.fromkeys(domain._visualizations, False))
        return domain
    raise SimulatorError(
        f"The fixtures of {task.name} could not be placed in {MAX_PLACEMENT_ATTEMPTS} attempts."
    )


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seeds numpy's global generator, which LIBERO draws from, and gives it back as it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


def _axis_angle(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axis-angle rad (3,) of a unit quaternion (w, x, y, z), angle in [0, 2 pi], as in openpi's LIBERO client."""
    w = min(max(float(quaternion[0]), -1.0), 1.0)
    sine = math.sqrt(1.0 - w * w)
    if math.isclose(sine, 0.0):
        return np.zeros(3)
    angle: NDArray[np.float64] = quaternion[1:] * (2.0 * math.acos(w)) / sine
    return angle
