"""Episodes while they are played by whichever env is free: `Episode`, `EpisodeStart`, `PlayedEpisode`, `PolicyRow`."""

__all__ = ["Episode", "EpisodeStart", "PlayedEpisode", "PolicyRow"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EpisodeStart:
    """How an episode begins.

    Attributes:
        seed: Of the env's reset.
        options: Of the env's reset, e.g. ``{"task_id": 3, "init_state_id": 5}``.
    """

    seed: int
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class PolicyRow:
    """What a policy may want to know about a row of a batch beside its observation.

    Attributes:
        episode: Number of the episode.
        step: Number of the action that is wanted, from 0.
        rng: The episode's own generator; what a policy draws from it doesn't depend on the batch.
        info: The env's, of the observation.
    """

    episode: int
    step: int
    rng: np.random.Generator
    info: dict[str, Any]


@dataclass(frozen=True)
class PlayedEpisode:
    """An episode from its start to its end, of T steps (or chunks).

    Attributes:
        index: Its number.
        group: Number of its group, which shares the start.
        start: How it began.
        observations: T + 1 of them.
        actions: T of them, as the policy gave them.
        rewards: float64 (T,).
        infos: T + 1 of them.
        terminated: It ended terminated.
        truncated: It ended truncated.
        is_lost: It was lost with its worker more often than it may be repeated; no statement about success. Its last
            step's observation is the one before it.
    """

    index: int
    group: int
    start: EpisodeStart
    observations: list[Any]
    actions: list[NDArray[Any]]
    rewards: NDArray[np.float64]
    infos: list[dict[str, Any]]
    terminated: bool
    truncated: bool
    is_lost: bool


class Episode:
    """An episode that is being played, and can be repeated up to where it was when its worker died.

    Args:
        index: Its number.
        group: Its group's number.
        start: How it begins.
        rng: Its policy's generator.

    Attributes:
        losses: How often it was lost.
    """

    def __init__(self, index: int, group: int, start: EpisodeStart, rng: np.random.Generator) -> None:
        self.index, self.group, self.start, self.rng = index, group, start, rng
        self.losses = 0
        self.observations: list[Any] = []
        self.actions: list[NDArray[Any]] = []
        self.rewards: list[float] = []
        self.infos: list[dict[str, Any]] = []
        self.terminated = self.truncated = self.is_lost = False
        self._num_returned = -1  # since its latest reset, which counts as the first

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.terminated or self.truncated

    @property
    def repeated_action(self) -> NDArray[Any] | None:
        """What the env must be given to get back to where the episode was; None if it is there."""
        return self.actions[self._num_returned] if self._num_returned < len(self.actions) else None

    def row(self) -> PolicyRow:
        """For the policy."""
        return PolicyRow(self.index, len(self.actions), self.rng, self.infos[-1])

    def begin(self) -> None:
        """It is about to be reset."""
        self._num_returned = -1

    def take(
        self, observation: Any, reward: float, terminated: bool, truncated: bool, info: dict[str, Any]
    ) -> bool:
        """What its reset or next step returned; returns whether that is news."""
        self._num_returned += 1
        if self._num_returned < len(self.observations):
            return False
        self.observations.append(observation)
        self.infos.append(info)
        if self._num_returned:
            self.rewards.append(reward)
            self.terminated, self.truncated = terminated, truncated
        return True

    def give_up(self, info: dict[str, Any]) -> None:
        """It was lost too often: it ends here."""
        self.observations.append(self.observations[-1])
        self.infos.append(info)
        self.rewards.append(0.0)
        self.truncated = self.is_lost = True

    def played(self) -> PlayedEpisode:
        """The episode as it ended."""
        return PlayedEpisode(
            self.index, self.group, self.start, self.observations, self.actions,
            np.array(self.rewards, np.float64), self.infos, self.terminated, self.truncated, self.is_lost,
        )  # fmt: skip
