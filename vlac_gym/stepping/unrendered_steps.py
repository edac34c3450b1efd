"""Stepping without looking: `UnrenderedSteps`, which renders a frame only when somebody asks for it."""

__all__ = ["UnrenderedSteps"]

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker

from vlac_gym.stepping.frame_source import FrameReader
from vlac_gym.types import Frame

StepResult = tuple[float, bool, bool, dict[str, Any]]


class UnrenderedSteps:
    """Steps an env by `step_unrendered`, `current_info` and `observe` where it has them, else by `step`.

    An env has them if it, or an env under nothing but Gymnasium's `OrderEnforcing` and `PassiveEnvChecker`,
    defines all three; another wrapper in between could change the observation, so that it must see every step.

    Args:
        env: The env that is stepped.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._env = env
        self._quiet = _quiet_env(env)
        self._observation: Any = None

    def begin(self, observation: Any) -> None:
        """Takes the observation of `reset`."""
        self._observation = observation

    def step(self, action: Any) -> StepResult:
        """One env step; returns (reward, terminated, truncated, info)."""
        if self._quiet is not None:
            self._observation = None
            reward, terminated, truncated = self._quiet.step_unrendered(action)
            return reward, terminated, truncated, self._quiet.current_info()
        self._observation, reward, terminated, truncated, info = self._env.step(action)
        if type(reward) is not float:  # np.float64 inherits from it
            reward = float(np.asarray(reward).item())  # Some envs return one of shape (1,).
        return reward, bool(terminated), bool(truncated), info

    def draw_ahead(self, reader: FrameReader | None) -> None:
        """Has what `observe`, or `frame` of a reader, will look at drawn meanwhile, where the env can.

        Args:
            reader: Of the critic's frame; None for the whole observation.
        """
        if self._quiet is None or not hasattr(self._quiet, "draw_ahead"):
            return
        if reader is None or reader.camera is None:
            self._quiet.draw_ahead()
        else:
            self._quiet.draw_ahead([reader.camera])

    def observe(self) -> Any:
        """The observation of the present state."""
        if self._observation is None and self._quiet is not None:
            self._observation = self._quiet.observe()
        return self._observation

    def frame(self, reader: FrameReader, info: Mapping[str, Any]) -> Frame:
        """The critic's frame of the present state; renders no camera but its own."""
        camera = reader.camera
        if self._quiet is not None and camera is not None and hasattr(self._quiet, "render_camera"):
            picture: Frame = self._quiet.render_camera(camera)
            return picture
        return reader.read(self._env, self.observe(), info)


def _quiet_env(env: gym.Env[Any, Any]) -> Any | None:
    while isinstance(env, OrderEnforcing | PassiveEnvChecker):
        env = env.env
    has_all = all(hasattr(type(env), name) for name in ("step_unrendered", "current_info", "observe"))
    return env if has_all else None
