"""Which episode an env plays next."""

import numpy as np

from vlac_gym.rollout.playing import EpisodeStart, RunningEpisode
from vlac_gym.rollout.start_queue import StartQueue


def queue_of(*starts):
    rng = np.random.default_rng(0)
    return StartQueue(
        RunningEpisode(n, n, start, rng, keeps_observations=True) for n, start in enumerate(starts)
    )


def test_an_env_stays_with_its_task_and_a_new_one_takes_the_longest():
    queue = queue_of(*(EpisodeStart(0, {"task_id": task}) for task in (0, 0, 0, 1, 1, 1)))
    first, second = queue.next(0), queue.next(1)
    assert (first.index, second.index) == (0, 3)
    assert [queue.next(0, first).index for _ in range(2)] == [1, 2]
    assert queue.next(0, first).index == 4  # its own is played: helps the other
    assert queue.next(1, second).index == 5
    assert queue.next(1, second) is None


def test_starts_without_tasks_come_in_order():
    queue = queue_of(*(EpisodeStart(seed) for seed in range(3)))
    assert [queue.next(env).index for env in (2, 0, 1)] == [0, 1, 2]


def test_an_env_plays_only_what_is_left_to_it():
    queue = queue_of(EpisodeStart(0, envs=range(2)), EpisodeStart(0, envs=range(2, 4)), EpisodeStart(0))
    assert [queue.next(3).index for _ in range(2)] == [1, 2]
    assert queue.next(3) is None
    assert queue.next(1).index == 0
