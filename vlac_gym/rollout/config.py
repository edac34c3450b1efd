"""How an `AsyncRollout` plays: `AsyncRolloutConfig`, and its keyword form `AsyncRolloutOptions`."""

__all__ = ["AsyncRolloutConfig", "AsyncRolloutOptions", "Starts"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypedDict

from vlac_gym.errors import ConfigError
from vlac_gym.rollout.playing import EpisodeStart
from vlac_gym.types import Mode

Starts: TypeAlias = Callable[[int], EpisodeStart] | Sequence[EpisodeStart]
"""The start of each group, by its number."""


class AsyncRolloutOptions(TypedDict, total=False):
    """Keyword arguments of `AsyncRollout`; see there."""

    starts: Starts | None
    seed: int
    group_size: int
    first_episode: int
    min_ready: int
    max_repeats: int
    mode: Mode | None
    keeps_observations: bool


@dataclass(frozen=True, kw_only=True)
class AsyncRolloutConfig:
    """How an `AsyncRollout` plays, checked; described there.

    Raises:
        ConfigError: An option can't be that.
    """

    starts: Starts | None = None
    seed: int = 0
    group_size: int = 1
    first_episode: int = 0
    min_ready: int = 1
    max_repeats: int = 3
    mode: Mode | None = None
    keeps_observations: bool = True

    def __post_init__(self) -> None:
        for name, low in (("group_size", 1), ("min_ready", 1), ("max_repeats", 0), ("first_episode", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"Expected {name} >= {low}, got {getattr(self, name)}.")
        if self.first_episode % self.group_size:
            raise ConfigError(
                f"Expected first_episode as a multiple of group_size {self.group_size}, got {self.first_episode}."
            )
