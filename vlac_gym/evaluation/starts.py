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
    num_init_states: Mapping[int, int], episodes_per_task: int, seed: int, first_episode: int = 0
) -> tuple[PlannedEpisode, ...]:
    """Episode i of a task starts from its initial state i, then from state 0 again, as LIBERO's evaluation does.

    Args:
        num_init_states: Task -> how many official initial states it has.
        episodes_per_task: 1 or more.
        seed: From it, the task and the episode's number the episode's seed is drawn.
        first_episode: Number of the first, 0 or more: they are the same episodes as those of a whole evaluation.

    Raises:
        ConfigError: No task, no episode, or a negative number.
    """
    if not num_init_states or episodes_per_task < 1 or min(seed, first_episode) < 0:
        raise ConfigError(
            f"Expected at least one task and one episode, and a seed and first episode of 0 or more, got "
            f"{len(num_init_states)} tasks, {episodes_per_task} episodes per task, seed {seed} and first episode "
            f"{first_episode}."
        )
    return tuple(
        PlannedEpisode(task_id, episode, episode % count, _seed(seed, task_id, episode))
        for task_id, count in num_init_states.items()
        for episode in range(first_episode, first_episode + episodes_per_task)
    )


def _seed(seed: int, task_id: int, episode: int) -> int:
    return int(np.random.SeedSequence((seed, task_id, episode)).generate_state(1)[0])
