"""Which episodes an evaluation plays: `PlannedEpisode`, `plan_episodes`."""

__all__ = ["PlannedEpisode", "plan_episodes"]

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.rollout.playing import EpisodeStart


@dataclass(frozen=True)
class PlannedEpisode:
    """One episode of an evaluation; what happens in it follows from this and the policy alone.

    Attributes:
        task_id: The task.
        episode: Number of the episode in its task, from 0.
        init_state_id: The official initial state.
        seed: Of env and policy.
    """

    task_id: int
    episode: int
    init_state_id: int
    seed: int

    @property
    def start(self) -> EpisodeStart:
        """How it begins."""
        return EpisodeStart(self.seed, {"task_id": self.task_id, "init_state_id": self.init_state_id})


def plan_episodes(
    num_init_states: Mapping[int, int], episodes_per_task: int, seed: int
) -> tuple[PlannedEpisode, ...]:
    """Episode i of a task starts from its initial state i, then from state 0 again, as LIBERO's evaluation does.

    Args:
        num_init_states: Task -> how many official initial states it has.
        episodes_per_task: 1 or more.
        seed: From it, the task and the episode's number the episode's seed is drawn.

    Raises:
        ConfigError: No task, no episode, or a negative seed.
    """
    if not num_init_states or episodes_per_task < 1 or seed < 0:
        raise ConfigError(
            f"Expected at least one task and one episode, and a seed of 0 or more, got {len(num_init_states)} tasks, "
            f"{episodes_per_task} episodes per task and seed {seed}."
        )
    return tuple(
        PlannedEpisode(task_id, episode, episode % count, _seed(seed, task_id, episode))
        for task_id, count in num_init_states.items()
        for episode in range(episodes_per_task)
    )


def _seed(seed: int, task_id: int, episode: int) -> int:
    return int(np.random.SeedSequence((seed, task_id, episode)).generate_state(1)[0])
