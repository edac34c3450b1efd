"""The policy protocol: `Policy`, and `StagedPolicy` for policies that name what they are doing."""

__all__ = ["Action", "Policy", "StagedPolicy"]

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Action: TypeAlias = NDArray[np.float32]
"""float32 of the action space's shape and within its bounds."""


@runtime_checkable
class Policy(Protocol):
    """Chooses actions. Same seed and same observations give the same actions; policies can be pickled."""

    def reset(self, env: gym.Env[Any, Any], seed: int | None = None) -> None:
        """Starts an episode; call it after `env.reset`.

        Args:
            env: The environment, wrapped or not, that the actions will go to.
            seed: Seed of whatever the policy draws; None draws a fresh one.

        Raises:
            ConfigError: The policy can't act in this environment.
        """
        ...

    def act(self, obs: Any, info: Mapping[str, Any]) -> Action:
        """The next action.

        Args:
            obs: The latest observation.
            info: The latest `info`.
        """
        ...


@runtime_checkable
class StagedPolicy(Policy, Protocol):
    """A policy that can say what it is doing: labels for recorded data."""

    @property
    def stage(self) -> str:
        """Name of the present stage, e.g. ``"carry"``."""
        ...

    @property
    def stage_index(self) -> int:
        """How many stages of the present plan came before this one."""
        ...
