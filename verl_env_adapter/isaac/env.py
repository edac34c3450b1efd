"""verl's Isaac env as one Gymnasium env, for the wrapper: `IsaacLiberoEnv`. Imports no simulator.

Written against `verl/experimental/vla/envs/isaac_env/isaac_env.py` at commit b178a3c (2026-01). Tested on a double with
the shapes, dtypes and habits recorded there, not on Isaac Sim. What is translated:

- It is a batch of `num_envs` that plays one task; here `num_envs` is 1, and arrays lose their first axis.
- It starts with `reset_envs_to_state_ids`, which builds the task's scene; `reset` alone fails before that, and the
  state id picks nothing: the scene starts at random. So `reset(options={"task_id": …})` goes there, and the seed has
  no effect.
- Observations, rewards and flags are torch tensors, `infos["episode"]["success_once"]` the simulator's verdict.
- The step limit is compared before the step is counted, one step late; it is left to the wrapper
  (``max_episode_steps``), and `truncated` is always False here.
"""

__all__ = ["IsaacLiberoEnv"]

from typing import Any, ClassVar, Protocol

import gymnasium as gym
import numpy as np

from vlac_gym.errors import AdapterContractError, ConfigError
from vlac_gym.types import Frame


class IsaacBatch(Protocol):
    """What is used of verl's `IsaacEnv`."""

    num_envs: int

    def reset_envs_to_state_ids(self, state_ids_list: list[int], task_ids_list: list[int]) -> Any:
        """Builds the task's scene and settles it; returns observation and infos."""
        ...

    def step(self, actions: Any) -> Any:
        """One action for each env, (num_envs, 7)."""
        ...

    def close(self) -> None:
        """Ends the simulator."""
        ...


class IsaacLiberoEnv(gym.Env[dict[str, Any], Any]):
    """One env of LIBERO's tasks in Isaac Sim, with this package's observation keys.

    Observation: `agentview_image` uint8 (H, W, 3), `state` float32 (D,) = end-effector pose. Action: Box(-1, 1, (7,)).
    Info: `task` (text), `success` (bool, so far in this episode), `elapsed_steps`.

    Args:
        isaac: verl's `IsaacEnv` with ``num_envs: 1``.
        image_size: Height and width of its camera, in pixels.
        state_size: D.
        task_id: The task, unless a reset says otherwise.

    Raises:
        ConfigError: It has more than one env.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}  # type: ignore[misc]

    def __init__(
        self,
        isaac: IsaacBatch,
        *,
        image_size: tuple[int, int] = (256, 256),
        state_size: int = 7,
        task_id: int = 0,
    ) -> None:
        if isaac.num_envs != 1:
            raise ConfigError(
                f"Expected an IsaacEnv with num_envs 1, got {isaac.num_envs}: its envs can't be reset one by one."
            )
        self._isaac = isaac
        self._task_id = task_id
        self._elapsed = 0
        self.observation_space = gym.spaces.Dict(
            {
                "agentview_image": gym.spaces.Box(0, 255, (*image_size, 3), np.uint8),
                "state": gym.spaces.Box(-np.inf, np.inf, (state_size,), np.float32),
            }
        )
        self.action_space = gym.spaces.Box(-1.0, 1.0, (7,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode of ``options["task_id"]``, else of the task before."""
        super().reset(seed=seed)
        self._task_id = int((options or {}).get("task_id", self._task_id))
        raw, _ = self._isaac.reset_envs_to_state_ids([0], [self._task_id])
        self._elapsed = 0
        return self._observation(raw), self._info(raw, False)

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Executes one action, (7,)."""
        batch = np.asarray(action, dtype=np.float32)[None]
        raw, rewards, terminations, _, infos = self._isaac.step(batch)
        self._elapsed += 1
        success = bool(infos["episode"]["success_once"][0])
        return (
            self._observation(raw),
            float(rewards[0]),
            bool(terminations[0]),
            False,
            self._info(raw, success),
        )

    def close(self) -> None:
        """Ends the simulator."""
        self._isaac.close()

    def _observation(self, raw: Any) -> dict[str, Any]:
        parts = raw["images_and_states"]
        frame: Frame = np.asarray(parts["full_image"])[0]
        observation = {
            "agentview_image": np.ascontiguousarray(frame),
            "state": np.asarray(parts["state"])[0].astype(np.float32),
        }
        for name, space in self.observation_space.spaces.items():  # type: ignore[attr-defined]
            if observation[name].shape != space.shape or observation[name].dtype != space.dtype:
                raise AdapterContractError(
                    f"Expected {name} as {space.dtype} {space.shape} from IsaacEnv, got {observation[name].dtype} "
                    f"{observation[name].shape}. Give image_size and state_size as its cameras have them."
                )
        return observation

    def _info(self, raw: Any, success: bool) -> dict[str, Any]:
        return {"task": str(raw["task_descriptions"][0]), "success": success, "elapsed_steps": self._elapsed}
