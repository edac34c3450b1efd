"""A toy with LIBERO's interface and no physics, for demos and tests of training: `ReachEnv`."""

__all__ = ["NUM_REACH_STATES", "REACH_TASKS", "ReachEnv"]

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import ArrayLike, NDArray

from vlac_gym.errors import ConfigError
from vlac_gym.types import Frame

REACH_TASKS = ("touch the red ball", "touch the blue ball")
"""Task id -> instruction."""

NUM_REACH_STATES = 50
"""Initial states of each task, as many as LIBERO's tasks have."""

_BALLS = np.array([[0.15, 0.1, 0.1], [-0.15, -0.1, 0.2]])  # m
_COLOURS = ((220, 30, 30), (30, 60, 220))
_LOW, _HIGH = np.array([-0.3, -0.3, 0.0]), np.array([0.3, 0.3, 0.3])  # the hand's room, m
_METRES_PER_UNIT = 0.05
_TOUCH_M = 0.05
_MIN_START_M = 0.2
_WRIST_VIEW_M = 0.2  # half the side of what the wrist camera sees


class ReachEnv(gym.Env[dict[str, Any], NDArray[np.float32]]):
    """A hand that floats in a room of 0.6 x 0.6 x 0.3 m, and two balls that hang there; one is to be touched.

    Spaces, reset options, info and the ends of episodes are `LiberoEnv`'s; so is the action, of which only the first
    three entries move anything: 1.0 is 0.05 m. The agentview looks down on the whole room, the wrist camera down
    on 0.4 m around the hand; the hand is a square that grows with its height. `goal_progress` is the share of the
    initial distance that was covered, 1 exactly at success (within 0.05 m). An initial state is where the hand
    starts, at least 0.2 m from its ball; the balls stay where they are.

    Args:
        task_id: 0 for the red ball, 1 for the blue one.
        image_size: Side of the pictures in pixels, >= 16.
        max_episode_steps: Step limit, >= 1.

    Raises:
        ConfigError: An argument does not fit.
    """

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 20}  # noqa: RUF012 (Gymnasium's own interface)

    def __init__(self, task_id: int = 0, *, image_size: int = 32, max_episode_steps: int = 16) -> None:
        if task_id not in range(len(REACH_TASKS)):
            raise ConfigError(f"Expected a reach task in 0..{len(REACH_TASKS) - 1}, got {task_id!r}.")
        if image_size < 16 or max_episode_steps < 1:
            raise ConfigError(
                f"Expected image_size >= 16 and max_episode_steps >= 1, got {image_size} and {max_episode_steps}."
            )
        self.render_mode = None
        picture = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {
                "agentview_image": picture,
                "wrist_image": picture,
                "state": spaces.Box(-1.0, 1.0, (8,), np.float32),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self._task_id = task_id
        self._size = image_size
        self._max_episode_steps = max_episode_steps
        self._hand: NDArray[np.float64] | None = None
        self._init_state_id = 0
        self._start_m = 1.0
        self._elapsed_steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode from ``options["init_state_id"]``, else from one that the seeded generator draws.

        Raises:
            ConfigError: There is no such state, or an option is unknown.
        """
        super().reset(seed=seed)
        unknown = set(options or {}) - {"init_state_id"}
        if unknown:
            raise ConfigError(f"Expected the reset option 'init_state_id', got {sorted(unknown)}.")
        chosen = (options or {}).get("init_state_id")
        state = int(self.np_random.integers(NUM_REACH_STATES)) if chosen is None else chosen
        if state not in range(NUM_REACH_STATES):
            raise ConfigError(f"Expected init_state_id in 0..{NUM_REACH_STATES - 1}, got {state!r}.")
        self._init_state_id, self._elapsed_steps = int(state), 0
        rng = np.random.default_rng((self._task_id, self._init_state_id))
        self._hand = rng.uniform(_LOW, _HIGH)
        while self._distance_m() < _MIN_START_M:
            self._hand = rng.uniform(_LOW, _HIGH)
        self._start_m = self._distance_m()
        return self._observation(), self._info()

    def step(self, action: ArrayLike) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Moves the hand; it may be stepped on after the episode's end."""
        if self._hand is None:
            raise ResetNeeded("Call reset() before step().")
        command = np.asarray(action, np.float64)
        if command.shape != (7,) or not np.isfinite(command).all():
            raise ConfigError(f"Expected a finite action of shape (7,), got {command}.")
        self._hand = np.clip(self._hand + _METRES_PER_UNIT * np.clip(command[:3], -1, 1), _LOW, _HIGH)
        self._elapsed_steps += 1
        success = self._is_success()
        truncated = self._elapsed_steps >= self._max_episode_steps
        return self._observation(), float(success), success, truncated, self._info()

    def _distance_m(self) -> float:
        return float(np.linalg.norm(self._hand - _BALLS[self._task_id]))

    def _is_success(self) -> bool:
        return self._distance_m() <= _TOUCH_M

    def _info(self) -> dict[str, Any]:
        success = self._is_success()
        covered = min(0.99, max(0.0, 1.0 - self._distance_m() / self._start_m))
        return {
            "task": REACH_TASKS[self._task_id],
            "task_suite": "reach",
            "task_id": self._task_id,
            "init_state_id": self._init_state_id,
            "success": success,
            "goal_progress": 1.0 if success else covered,
            "elapsed_steps": self._elapsed_steps,
        }

    def _observation(self) -> dict[str, Any]:
        assert self._hand is not None
        state = np.zeros(8, np.float32)
        state[:3] = self._hand
        return {
            "agentview_image": self._picture(np.zeros(2), 0.3),
            "wrist_image": self._picture(self._hand[:2], _WRIST_VIEW_M),
            "state": state,
        }

    def _picture(self, centre: NDArray[np.float64], half_m: float) -> Frame:
        """Looking down: x to the right, y up, `half_m` to each side of `centre`."""
        assert self._hand is not None
        picture = np.full((self._size, self._size, 3), 200, np.uint8)
        for ball, colour in zip(_BALLS, _COLOURS):
            self._paint(picture, ball[:2] - centre, 0.05, half_m, colour)
        self._paint(picture, self._hand[:2] - centre, 0.02 + 0.1 * self._hand[2], half_m, (40, 40, 40))
        return picture

    def _paint(
        self,
        picture: Frame,
        at: NDArray[np.float64],
        radius_m: float,
        half_m: float,
        colour: tuple[int, int, int],
    ) -> None:
        pixels = self._size / (2 * half_m)
        left, right = (round((half_m + at[0] + side * radius_m) * pixels) for side in (-1, 1))
        top, bottom = (round((half_m - at[1] + side * radius_m) * pixels) for side in (-1, 1))
        picture[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = colour
