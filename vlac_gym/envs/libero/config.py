"""How a `LiberoEnv` plays its task: `LiberoConfig`, and its keyword form `LiberoOptions`."""

__all__ = ["MAX_COMPILED_MODELS", "LiberoConfig", "LiberoOptions"]

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from vlac_gym.envs.libero.spaces import checked_cameras, whole_number
from vlac_gym.errors import ConfigError, unknown_name

MAX_COMPILED_MODELS = 2
"""Compiled tasks one env object keeps (least recently used goes first): about 0.3 GB each, and as much for
textures once a picture was rendered."""


class LiberoOptions(TypedDict, total=False):
    """Keyword arguments of `LiberoEnv`; see there."""

    init_state_id: int | None
    cameras: Sequence[str]
    image_size: int
    max_episode_steps: int | None
    step_limit: int | None
    settle_steps: int
    render_mode: str | None
    max_compiled_models: int
    start_timeout_s: float
    repeat_solves: bool
    start_cache: str | os.PathLike[str] | None


@dataclass(frozen=True, kw_only=True)
class LiberoConfig:
    """How a `LiberoEnv` plays its task, checked as far as no task is needed; described there.

    Raises:
        ConfigError: An option can't be that.
    """

    init_state_id: int | None = None
    cameras: Sequence[str] = ("agentview", "wrist")
    image_size: int = 256
    max_episode_steps: int | None = None
    step_limit: int | None = None
    settle_steps: int = 10
    render_mode: str | None = "rgb_array"
    max_compiled_models: int = MAX_COMPILED_MODELS
    start_timeout_s: float = 300.0
    repeat_solves: bool = True
    start_cache: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        self._set("cameras", checked_cameras(self.cameras))
        for name, low, high in (
            ("image_size", 16, 2048),
            ("settle_steps", 0, 1000),
            ("max_compiled_models", 1, 1000),
            ("max_episode_steps", 1, 1_000_000),
            ("step_limit", 1, 1_000_000),
        ):
            number = getattr(self, name)
            if number is not None or name not in ("max_episode_steps", "step_limit"):
                self._set(name, whole_number(name, number, low, high))
        if not (math.isfinite(self.start_timeout_s) and self.start_timeout_s > 0):
            raise ConfigError(f"Expected start_timeout_s above 0, got {self.start_timeout_s}.")
        if self.render_mode not in (None, "rgb_array"):
            raise unknown_name("render mode", str(self.render_mode), ("rgb_array", "None"))
        if self.max_episode_steps is not None and self.step_limit is not None:
            raise ConfigError(
                f"Expected max_episode_steps or step_limit, got both ({self.max_episode_steps}, {self.step_limit}). "
                "Drop one."
            )

    def _set(self, name: str, value: object) -> None:
        """Keeps a value in the form that its check returns: Python's own numbers."""
        object.__setattr__(self, name, value)

    @property
    def limit(self) -> int | None:
        """The step limit under either name; None for the suite's."""
        return self.max_episode_steps if self.step_limit is None else self.step_limit
