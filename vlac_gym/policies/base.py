"""The policy protocol: `Policy`; `ChunkPolicy` for models that plan chunks for many envs; `StagedPolicy` for experts.

A policy may also say, as attributes: `is_privileged` (bool), that it reads the simulator instead of observations and so
must run in the process of its env; `cameras`, which cameras it needs.
"""

__all__ = ["Action", "ChunkPolicy", "Policy", "StagedPolicy"]

from collections.abc import Mapping, Sequence
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
class ChunkPolicy(Policy, Protocol):
    """A model that answers for any number of envs at once, and remembers nothing between two answers of `plan`."""

    def plan(self, observations: Sequence[Any], infos: Sequence[Mapping[str, Any]]) -> Sequence[Action]:
        """The next actions of each env, to be executed without looking in between.

        Args:
            observations: The latest of each env.
            infos: The latest `info` of each env.

        Returns:
            One chunk for each, (T, A) with T >= 1.

        Raises:
            PolicyError: The model gave no usable action.
        """
        ...

    def close(self) -> None:
        """Frees the model, or ends the connection to it; safe to call twice."""
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
