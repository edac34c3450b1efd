"""Several actions per step: `ActionChunk`, for one env."""

__all__ = ["ActionChunk"]

from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError
from vlac_gym.stepping.actions import as_array, check_action, chunk_space
from vlac_gym.stepping.unrendered_steps import UnrenderedSteps

ObsType = TypeVar("ObsType")


class ActionChunk(gym.Wrapper[ObsType, NDArray[Any], ObsType, NDArray[Any]], RecordConstructorArgs):
    """Executes a chunk of actions open-loop and returns the last observation; stops where the episode ends.

    Its counterpart for many envs is `vlac_gym.wrappers.vector.ActionChunk`.

    Action: Box (chunk_size, A), each row an action of the wrapped env; a chunk may have fewer rows than
    `chunk_size`, but at least one. The reward is the sum over the executed steps. Pictures of steps that
    neither the critic nor the caller looks at are never rendered (envs with `step_unrendered`). Around a
    `VLACRewardWrapper`, ``done_interval=chunk_size`` asks the critic at chunk ends only, and
    ``done_interval=1`` at every env step.

    `info` is the last executed step's, and adds ``info["chunk"]``: `executed_steps` (int), `rewards`
    (float64 (executed_steps,)).

    Args:
        env: The env; its action space is a Box of shape (A,).
        chunk_size: Most actions of a chunk, >= 1.

    Raises:
        ConfigError: `chunk_size` < 1, or another action space.
    """

    def __init__(self, env: gym.Env[ObsType, NDArray[Any]], chunk_size: int) -> None:
        RecordConstructorArgs.__init__(self, chunk_size=chunk_size)
        gym.Wrapper.__init__(self, env)
        space = chunk_space(env.action_space, chunk_size)
        self.chunk_size, self._action_size = space.shape
        self.action_space = space
        self._steps = UnrenderedSteps(env)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Resets the wrapped env."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._steps.begin(observation)
        return observation, info

    def step(self, action: NDArray[Any]) -> tuple[ObsType, float, bool, bool, dict[str, Any]]:
        """Executes the rows of `action` (T, A), 1 <= T <= chunk_size, until the episode ends.

        Raises:
            ConfigError: Wrong shape or not finite; nothing was executed.
        """
        chunk = as_array(action, "a chunk")
        if chunk.ndim != 2 or chunk.shape[1] != self._action_size or not 1 <= len(chunk) <= self.chunk_size:
            raise ConfigError(
                f"Expected a chunk of shape (1..{self.chunk_size}, {self._action_size}), got {chunk.shape}."
            )
        for row in chunk:
            check_action(row, self.env.action_space)
        rewards: list[float] = []
        for row in chunk:
            reward, terminated, truncated, info = self._steps.step(row)
            rewards.append(float(reward))
            if terminated or truncated:
                break
        report = {"executed_steps": len(rewards), "rewards": np.array(rewards)}
        info = info | {"chunk": report}
        return self._steps.observe(), float(sum(rewards)), terminated, truncated, info
