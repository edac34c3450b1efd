"""An env that follows a script instead of physics, for tests of wrappers, vector envs and adapters: `ScriptedEnv`."""

__all__ = ["ScriptedEnv"]

from collections.abc import Collection, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from vlac_gym.errors import ConfigError
from vlac_gym.types import Frame

_MAX_STEP = 2**24
"""Up to here float32 counts exactly."""


class ScriptedEnv(gym.Env[dict[str, Any], Any]):
    """LIBERO's interface with a script for a simulator; every frame names its episode and step.

    Observation: Dict of `agentview_image`, uint8 (H, W, 3), whose first pixel is (episode % 256,
    step // 256, step % 256) and whose rest is black, and `state`, float32 (1,) = the step. Action:
    Box(-1, 1, (7,)), without effect. `terminated` and reward 1.0 at the steps of `success_steps`; `truncated` at
    `max_episode_steps`. It can be stepped on after both, as LIBERO can. `info` has `task`, `success`,
    `goal_progress` and `elapsed_steps`.

    Args:
        success_steps: Steps (1 is the first) at which the simulator reports success.
        max_episode_steps: Step limit, or None for none.
        goal_progress: `goal_progress` at step 0, 1, …; the last entry goes on. None: 1.0 at success, else 0.0.
        task: The task text.
        image_size: Height and width of the frame in pixels.
        render_mode: `rgb_array` or None.

    Attributes:
        num_steps: Calls of `step` so far, over all episodes.
        num_resets: Calls of `reset` so far.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's own interface)

    def __init__(
        self,
        success_steps: Collection[int] = (),
        max_episode_steps: int | None = 10,
        goal_progress: Sequence[float] | None = None,
        task: str = "put the bowl on the plate",
        image_size: int = 8,
        render_mode: str | None = None,
    ) -> None:
        if image_size < 1 or (max_episode_steps is not None and max_episode_steps < 1):
            raise ConfigError(
                f"Expected image_size and max_episode_steps >= 1, got {image_size!r} and {max_episode_steps!r}."
            )
        self.observation_space = gym.spaces.Dict(
            {
                "agentview_image": gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
                "state": gym.spaces.Box(0, _MAX_STEP, (1,), np.float32),
            }
        )
        self.action_space = gym.spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.render_mode = render_mode
        self.num_steps = self.num_resets = 0
        self._success_steps = frozenset(success_steps)
        self._max_episode_steps = max_episode_steps
        self._goal_progress = goal_progress
        self._task = task
        self._image_size = image_size
        self._step: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts the next episode of the script."""
        super().reset(seed=seed)
        self.num_resets += 1
        self._step = 0
        return self._observation(0), self._info(0)

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Moves one step on in the script."""
        if self._step is None:
            raise ResetNeeded("Call reset() before step().")
        self._step += 1
        self.num_steps += 1
        step = self._step
        succeeds = step in self._success_steps
        is_last = self._max_episode_steps is not None and step >= self._max_episode_steps
        return self._observation(step), float(succeeds), succeeds, is_last, self._info(step)

    def render(self) -> Frame | None:
        """The frame of this step, or None without ``render_mode="rgb_array"``."""
        if self.render_mode != "rgb_array" or self._step is None:
            return None
        return self._frame(self._step)

    def _observation(self, step: int) -> dict[str, Any]:
        return {"agentview_image": self._frame(step), "state": np.array([step], dtype=np.float32)}

    def _frame(self, step: int) -> Frame:
        frame = np.zeros((self._image_size, self._image_size, 3), dtype=np.uint8)
        frame[0, 0] = (self.num_resets % 256, step // 256 % 256, step % 256)
        return frame

    def _info(self, step: int) -> dict[str, Any]:
        success = step in self._success_steps
        progress = float(success)
        if self._goal_progress is not None:
            progress = float(self._goal_progress[min(step, len(self._goal_progress) - 1)])
        return {"task": self._task, "success": success, "goal_progress": progress, "elapsed_steps": step}
