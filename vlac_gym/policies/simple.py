"""Policies that look at nothing: `RandomPolicy` and `ZeroPolicy`."""

__all__ = ["RandomPolicy", "ZeroPolicy"]

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from vlac_gym.errors import ConfigError
from vlac_gym.policies.base import Action


class RandomPolicy:
    """Uniform actions within the action space's bounds."""

    cameras = ("agentview",)

    def __init__(self) -> None:
        self._low: Action | None = None
        self._high: Action | None = None
        self._rng = np.random.default_rng()

    @classmethod
    def from_spec(cls, argument: str) -> "RandomPolicy":
        """Builds it from a spec's argument, which must be empty."""
        _refuse_argument("random", argument)
        return cls()

    def reset(self, env: gym.Env[Any, Any], seed: int | None = None) -> None:
        """Reads the bounds of the action space and seeds the draws.

        Raises:
            ConfigError: The action space is not a bounded Box.
        """
        box = _box(env)
        if not box.is_bounded():
            raise ConfigError(f"Expected a bounded action space for random actions, got {box}.")
        self._low, self._high = box.low.astype(np.float32), box.high.astype(np.float32)
        self._rng = np.random.default_rng(seed)

    def act(self, obs: Any, info: Mapping[str, Any]) -> Action:
        """A fresh uniform draw."""
        if self._low is None or self._high is None:
            raise ConfigError("Policy 'random' was asked to act before reset(env, seed).")
        return self._rng.uniform(self._low, self._high).astype(np.float32)


class ZeroPolicy:
    """No motion: zeros in every action dimension (a LIBERO gripper keeps its opening at 0)."""

    cameras = ("agentview",)

    def __init__(self) -> None:
        self._shape: tuple[int, ...] | None = None

    @classmethod
    def from_spec(cls, argument: str) -> "ZeroPolicy":
        """Builds it from a spec's argument, which must be empty."""
        _refuse_argument("zero", argument)
        return cls()

    def reset(self, env: gym.Env[Any, Any], seed: int | None = None) -> None:
        """Reads the shape of the action space."""
        self._shape = _box(env).shape

    def act(self, obs: Any, info: Mapping[str, Any]) -> Action:
        """Zeros."""
        if self._shape is None:
            raise ConfigError("Policy 'zero' was asked to act before reset(env, seed).")
        return np.zeros(self._shape, np.float32)


def _box(env: gym.Env[Any, Any]) -> spaces.Box:
    if not isinstance(env.action_space, spaces.Box):
        raise ConfigError(f"Expected a Box action space, got {env.action_space}.")
    return env.action_space


def _refuse_argument(name: str, argument: str) -> None:
    if argument:
        raise ConfigError(f"Policy {name!r} takes no argument, got {argument!r}. Write just {name!r}.")
