"""Which episodes an evaluation plays, and in which order: `EpisodeStart`, `plan_starts`, `StartQueue`."""

__all__ = ["EpisodeStart", "StartQueue", "plan_starts"]

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from vlac_gym.errors import ConfigError


@dataclass(frozen=True)
class EpisodeStart:
    """Where one episode begins; what happens in it follows from this and the policy alone.

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


def plan_starts(
    num_init_states: Mapping[int, int], episodes_per_task: int, seed: int
) -> tuple[EpisodeStart, ...]:
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
        EpisodeStart(task_id, episode, episode % count, _seed(seed, task_id, episode))
        for task_id, count in num_init_states.items()
        for episode in range(episodes_per_task)
    )


def _seed(seed: int, task_id: int, episode: int) -> int:
    return int(np.random.SeedSequence((seed, task_id, episode)).generate_state(1)[0])


class StartQueue:
    """Hands out starts so that an env rarely changes its task, which costs it a compilation.

    Args:
        starts: What is to be played.
    """

    def __init__(self, starts: Iterable[EpisodeStart]) -> None:
        self._left: dict[int, deque[EpisodeStart]] = {}
        for start in starts:
            self._left.setdefault(start.task_id, deque()).append(start)

    def __len__(self) -> int:
        return sum(map(len, self._left.values()))

    def next(self, task_id: int | None = None) -> EpisodeStart | None:
        """The next start of this task, else of the task with most left; None if there is none."""
        left = {task: starts for task, starts in self._left.items() if starts}
        if not left:
            return None
        if task_id not in left:
            task_id = max(left, key=lambda task: (len(left[task]), -task))
        return self._left[task_id].popleft()

    def put_back(self, start: EpisodeStart) -> None:
        """Hands this start out again, before its task's others."""
        self._left[start.task_id].appendleft(start)
