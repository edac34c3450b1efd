"""Steps of several lanes, across the ends of their episodes: `StepBuffer`, `step_buffer`."""

__all__ = ["StepBuffer", "step_buffer"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError
from vlac_gym.rollout.playing import RunningEpisode


@dataclass(frozen=True)
class StepBuffer:
    """T steps (or chunks) of each of N lanes, across the ends of episodes.

    Attributes:
        observations: T lists of N: what the policy saw.
        actions: (T, N, …).
        rewards: float64 (T, N).
        terminations: bool (T, N).
        truncations: bool (T, N).
        lost: bool (T, N): the episode ended there with its worker.
        episodes: int64 (T, N): number of the episode.
        infos: T lists of N, of each step.
        next_observations: T lists of N: what each step led to, at an episode's end its last observation.
    """

    observations: list[list[Any]]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    episodes: NDArray[np.int64]
    infos: list[list[dict[str, Any]]]
    next_observations: list[list[Any]]


def step_buffer(rows: Sequence[Sequence[tuple[RunningEpisode, int]]]) -> StepBuffer:
    """The steps of N lanes.

    Args:
        rows: N of T: an episode and the number of its step.

    Raises:
        ConfigError: Actions of several shapes.
    """
    steps = list(zip(*rows, strict=True))  # T of N
    if len(shapes := {episode.actions[t].shape for step in steps for episode, t in step}) > 1:
        raise ConfigError(
            f"Expected actions of one shape for a buffer of steps, got {', '.join(map(str, sorted(shapes)))} from the "
            "policy. Give chunks of one length, or take episodes."
        )

    def each(read: Callable[[RunningEpisode, int], Any]) -> list[list[Any]]:
        return [[read(episode, t) for episode, t in step] for step in steps]

    def is_last(episode: RunningEpisode, t: int) -> bool:
        return t + 1 == len(episode.rewards)

    return StepBuffer(
        observations=each(lambda e, t: e.observations[t]),
        actions=np.array(each(lambda e, t: e.actions[t])),
        rewards=np.array(each(lambda e, t: e.rewards[t]), np.float64),
        terminations=np.array(each(lambda e, t: is_last(e, t) and e.terminated), np.bool_),
        truncations=np.array(each(lambda e, t: is_last(e, t) and e.truncated), np.bool_),
        lost=np.array(each(lambda e, t: is_last(e, t) and e.is_lost), np.bool_),
        episodes=np.array(each(lambda e, t: e.index), np.int64),
        infos=each(lambda e, t: e.infos[t + 1]),
        next_observations=each(lambda e, t: e.observations[t + 1]),
    )
