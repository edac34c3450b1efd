"""LIBERO manipulation tasks as a Gymnasium environment: `LiberoEnv`, id ``vlac_gym/Libero-v0``."""

__all__ = ["LiberoEnv"]

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Unpack

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlac_gym.envs.gl import renderer_name
from vlac_gym.envs.goal_progress import goal_progress
from vlac_gym.envs.libero.config import LiberoConfig, LiberoOptions
from vlac_gym.envs.libero.lighting import split_view
from vlac_gym.envs.libero.simulator import CONTROL_HZ, LiberoSimulator
from vlac_gym.envs.libero.spaces import action_space, observation_space
from vlac_gym.envs.libero.start_cache import open_start_cache, start_cache_folder
from vlac_gym.envs.libero.tasks import LiberoTask, check_init_state, get_task
from vlac_gym.envs.mujoco_version import check_mujoco
from vlac_gym.envs.offscreen import Picture
from vlac_gym.envs.scene import LiberoScene
from vlac_gym.errors import ConfigError, SimulatorError, unknown_name
from vlac_gym.types import Frame

_OPTIONS = ("init_state_id", "task_id")


class LiberoEnv(gym.Env[dict[str, Any], NDArray[np.float32]]):
    """A Panda arm on a LIBERO table: one task of one suite, judged by the task's goal.

    **Action** float32 (7,), in [-1, 1]; finite values beyond are clipped, as LIBERO's controller does; a wrong
    shape, NaN or infinity raises `ConfigError` and leaves the episode as it was.

    | index | meaning | unit at 1.0 |
    |---|---|---|
    | 0-2 | move the end effector along world x, y, z | 0.05 m |
    | 3-5 | turn it around x, y, z (axis-angle) | 0.5 rad |
    | 6 | gripper, by sign | -1 opens, +1 closes |

    **Observation** (of the state that the step reached)

    | key | type | meaning |
    |---|---|---|
    | `agentview_image`, `wrist_image` | uint8 (H, W, 3) | RGB, upright, not mirrored; the chosen cameras |
    | `state` | float32 (8,) | end-effector position m (3), axis-angle rad (3), gripper joints m (2) |

    **Reward** 1.0 while the goal holds, else 0.0. **Terminated** while the goal holds: stepping on is allowed, and
    every step says anew whether it still holds. **Truncated** from `max_episode_steps` on.

    **Info** `task` (instruction), `task_suite`, `task_id`, `init_state_id`, `success` (bool), `goal_progress`
    (privileged, in [0, 1], 1 exactly at success), `elapsed_steps`.

    **Reset** restores `options["init_state_id"]`, else the constructor's `init_state_id`, else one drawn with the
    seed; then `settle_steps` steps without motion let objects come to rest. `options["task_id"]` switches
    to another task of the suite, which stays until the next switch. The same (task, init state, actions)
    gives bitwise the same states in any process with the same MuJoCo and CPU type, whatever ran before.

    ``metadata["renderer"]`` names what draws the pictures, e.g. ``"mujoco 3.3.2"``: versions light a scene differently.

    Args:
        task_suite: A name from `vlac_gym.envs.list_suites`.
        task_id: Which task of the suite.
        init_state_id: Fixed initial state, or None to draw one at each reset.
        cameras: Which pictures the observation holds: ``"agentview"``, ``"wrist"`` or both.
        image_size: Side of the pictures in pixels, 16..2048.
        max_episode_steps: Step limit, or None for the suite's (`tasks.STEP_LIMITS`). `gym.make` keeps an
            argument of this name for its own `TimeLimit`, which can shorten an episode but not lengthen it.
        step_limit: The same under a name that `gym.make` passes on; give one of the two.
        settle_steps: Steps without motion after a reset; they do not count as episode steps.
        render_mode: ``"rgb_array"`` or None.
        max_compiled_models: Compiled tasks kept at once, about 0.7 GB each.
        start_timeout_s: Deadline for building a task.
        repeat_solves: robosuite computes each physics step's contact forces three times, and each time the iterative
            solver starts from the result before: True repeats that, so that states are LIBERO's own to the bit. False
            computes them once, for training: episodes begin in the same states and drift apart from LIBERO's by the
            solver's tolerance; `docs/libero.md` has the drift and the gain.
        start_cache: Folder that keeps settled starts for later processes, which need not simulate the settling steps;
            None for the one that `VLAC_GYM_START_CACHE` names, if any. Changes no result.

    Raises:
        ConfigError: An argument does not fit.
        DependencyNotInstalled: LIBERO is not installed, or MuJoCo in a version that spoils its scenes.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": CONTROL_HZ,
        "renderer": renderer_name(),
    }

    def __init__(
        self,
        task_suite: str = "libero_spatial",
        task_id: int = 0,
        **options: Unpack[LiberoOptions],
    ) -> None:
        check_mujoco()
        config = self._config = LiberoConfig(**options)
        self._task = get_task(task_suite, task_id)
        if config.init_state_id is not None:
            check_init_state(self._task, config.init_state_id)
        self.cameras = tuple(config.cameras)
        self.render_mode = config.render_mode
        self._start_cache = start_cache_folder(config.start_cache)
        self.observation_space = observation_space(self.cameras, config.image_size)
        self.action_space = action_space()
        self._simulators: OrderedDict[int, LiberoSimulator] = OrderedDict()
        self._simulator: LiberoSimulator | None = None
        self._init_state_id = -1
        self._elapsed_steps = 0
        self._success = False
        self._frames: dict[str, Frame] = {}
        self._pictures: dict[str, Picture] = {}

    # What a caller of the Gymnasium interface sees.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Starts an episode; see the class for the options.

        Raises:
            ConfigError: Unknown option or id; the running episode is left as it was.
            SimulatorError: The simulator cannot be started.
        """
        super().reset(seed=seed)
        task, init_state_id = self._choose(options or {})
        simulator = self._activate(task)
        self._simulator = None
        self._forget_pictures()
        self._frames = simulator.start(init_state_id)
        self._task, self._simulator, self._init_state_id = task, simulator, init_state_id
        self._elapsed_steps = 0
        self._success = simulator.is_success()
        return self.observe(), self.current_info()

    def step(self, action: ArrayLike) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Runs one control step of 50 ms and renders the chosen cameras.

        Raises:
            ConfigError: Wrong shape or a value that is not finite; nothing has moved.
            SimulatorError: The physics failed or `reset` has not been called.
        """
        reward, terminated, truncated = self.step_unrendered(action)
        return self.observe(), reward, terminated, truncated, self.current_info()

    def render(self) -> Frame | None:
        """The agent's view (or the only chosen camera) of the present state, or None without a render mode."""
        if self.render_mode is None:
            return None
        return self.render_camera("agentview" if "agentview" in self.cameras else self.cameras[0])

    def close(self) -> None:
        """Frees the simulators; may be called twice, and `reset` starts a new one."""
        for simulator in self._simulators.values():
            simulator.close()
        self._simulators.clear()
        self._simulator = None
        self._forget_pictures()

    # For wrappers that look at fewer frames than there are steps.

    def step_unrendered(self, action: ArrayLike) -> tuple[float, bool, bool]:
        """`step` without observation and info: nothing is rendered. `observe` and `current_info` make up for it.

        Returns:
            (reward, terminated, truncated), as `step` would give them.
        """
        simulator = self._running()
        command = _checked_action(action)
        self._forget_pictures()
        try:
            simulator.step(command)
        except SimulatorError:
            self._simulator = None
            raise
        self._elapsed_steps += 1
        self._success = simulator.is_success()
        truncated = self._elapsed_steps >= self.max_episode_steps
        return float(self._success), self._success, truncated

    def observe(self) -> dict[str, NDArray[Any]]:
        """The observation of the present state; each camera is rendered at most once per step."""
        self.draw_ahead()
        observation: dict[str, NDArray[Any]] = {
            f"{camera}_image": self.render_camera(camera) for camera in self.cameras
        }
        observation["state"] = self._running().proprioception()
        return observation

    def draw_ahead(self, cameras: Sequence[str] | None = None) -> None:
        """Has pictures of the present state drawn, so that `observe` and `render_camera` have less to wait for.

        A GPU draws them while the program does something else, and can draw them all at once for a process, where
        processes that share it would otherwise wait for their turn at each. Optional; pictures under another light are
        not drawn ahead.

        Args:
            cameras: Names as for `render_camera`; None for those of the observation.

        Raises:
            ConfigError: No such camera or light.
        """
        simulator = self._running()
        views = map(split_view, self.cameras if cameras is None else cameras)
        plain = [name for name, light in views if light is None]
        for camera in plain:
            if camera not in self._frames and camera not in self._pictures:
                self._pictures[camera] = simulator.draw(camera)

    def render_camera(self, camera: str) -> Frame:
        """One camera's picture of the present state, whether or not the observation holds it.

        Args:
            camera: `agentview`, `wrist`, or one of them under another light, as `agentview@shadow`; see
                `vlac_gym.envs.libero.lighting`. Pictures under another light are rendered at every call.

        Returns:
            uint8 (image_size, image_size, 3), RGB, upright; a copy.

        Raises:
            ConfigError: No such camera or light.
        """
        name, light = split_view(camera)
        simulator = self._running()
        if light is not None:
            return simulator.draw(name, light).read()
        if camera not in self._frames:
            picture = self._pictures.pop(camera, None) or simulator.draw(camera)
            self._frames[camera] = picture.read()
        return self._frames[camera].copy()

    def current_info(self) -> dict[str, Any]:
        """The info of the present state; see the class for its keys."""
        return {
            "task": self._task.language,
            "task_suite": self._task.suite,
            "task_id": self._task.task_id,
            "init_state_id": self._init_state_id,
            "success": self._success,
            "goal_progress": goal_progress(self.scene),
            "elapsed_steps": self._elapsed_steps,
        }

    @property
    def task(self) -> LiberoTask:
        """The current task."""
        return self._task

    @property
    def max_episode_steps(self) -> int:
        """The step limit of the current task."""
        return self._task.max_episode_steps if self._config.limit is None else self._config.limit

    @property
    def scene(self) -> LiberoScene:
        """Privileged view of the state, for experts and oracles; never for a policy under training."""
        return LiberoScene(self._running().domain, elapsed_steps=lambda: self._elapsed_steps)

    def proprioception(self) -> NDArray[np.float32]:
        """The observation's `state` without rendering: float32 (8,)."""
        return self._running().proprioception()

    def physics_state(self) -> NDArray[np.float64]:
        """float64 (1 + nq + nv,): time, joint positions and velocities; a copy."""
        return self._running().physics_state()

    def __getstate__(self) -> dict[str, Any]:
        # A simulator cannot travel; the copy starts its own at its first reset.
        return {
            **self.__dict__,
            "_simulators": OrderedDict(),
            "_simulator": None,
            "_frames": {},
            "_pictures": {},
        }

    def _forget_pictures(self) -> None:
        """The state is another now."""
        for picture in self._pictures.values():
            picture.drop()
        self._pictures, self._frames = {}, {}

    def _choose(self, options: dict[str, Any]) -> tuple[LiberoTask, int]:
        for name in options:
            if name not in _OPTIONS:
                raise unknown_name("reset option", str(name), _OPTIONS)
        task = self._task
        if options.get("task_id") is not None:
            task = get_task(task.suite, options["task_id"])
        chosen = options.get("init_state_id", self._config.init_state_id)
        if chosen is None:
            return task, int(self.np_random.integers(task.num_init_states))
        return task, check_init_state(task, chosen)

    def _activate(self, task: LiberoTask) -> LiberoSimulator:
        found = self._simulators.get(task.task_id)
        if found is None:
            while len(self._simulators) >= self._config.max_compiled_models:
                evicted = self._simulators.popitem(last=False)[1]
                if evicted is self._simulator:
                    self._simulator = None  # building the next may fail
                evicted.close()
            found = LiberoSimulator(
                task,
                image_size=self._config.image_size,
                settle_steps=self._config.settle_steps,
                start_timeout_s=self._config.start_timeout_s,
                repeat_solves=self._config.repeat_solves,
                start_cache=None if self._start_cache is None else open_start_cache(self._start_cache),
            )
            self._simulators[task.task_id] = found
        self._simulators.move_to_end(task.task_id)
        return found

    def _running(self) -> LiberoSimulator:
        if self._simulator is None:
            raise SimulatorError(
                "No episode is running: the env is new, closed or its physics failed. Call reset."
            )
        return self._simulator


def _checked_action(action: ArrayLike) -> NDArray[np.float64]:
    try:
        command = np.asarray(action, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"Expected an action of 7 numbers, got {type(action).__name__}: {error}."
        ) from error
    if command.shape != (7,):
        raise ConfigError(
            f"Expected an action of shape (7,), got {command.shape}. Step a chunk one row at a time."
        )
    if not np.isfinite(command).all():
        raise ConfigError(f"Expected a finite action, got {command.tolist()}. The env has not moved.")
    return np.clip(command, -1.0, 1.0)
