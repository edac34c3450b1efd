"""Which episodes are played, and in which order."""

import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.evaluation.starts import EpisodeStart, StartQueue, plan_starts


def test_states_come_in_order_and_begin_again_with_seeds_of_their_own():
    starts = plan_starts({2: 3, 5: 50}, 4, seed=7)
    assert [(s.task_id, s.episode, s.init_state_id) for s in starts] == [
        *[(2, 0, 0), (2, 1, 1), (2, 2, 2), (2, 3, 0)],
        *[(5, 0, 0), (5, 1, 1), (5, 2, 2), (5, 3, 3)],
    ]
    assert len({s.seed for s in starts}) == 8
    # A start does not depend on what else is played.
    assert plan_starts({5: 50}, 2, seed=7) == starts[4:6]
    assert plan_starts({5: 50}, 2, seed=8)[0].seed != starts[4].seed


@pytest.mark.parametrize(("tasks", "episodes", "seed"), [({}, 1, 0), ({0: 1}, 0, 0), ({0: 1}, 1, -1)])
def test_nothing_to_play_is_refused(tasks, episodes, seed):
    with pytest.raises(ConfigError, match="at least one task and one episode"):
        plan_starts(tasks, episodes, seed)


def test_an_env_stays_with_its_task_and_a_new_one_takes_the_longest():
    queue = StartQueue(plan_starts({0: 9, 1: 9}, 3, seed=0))
    first, second = queue.next(), queue.next()
    assert (first.task_id, second.task_id) == (0, 1)
    assert [queue.next(0).episode for _ in range(2)] == [1, 2]
    assert queue.next(0).task_id == 1  # its own is played: helps the other
    queue.put_back(EpisodeStart(1, 0, 0, 0))
    assert len(queue) == 2
    assert queue.next(1).episode == 0
    assert queue.next(1).episode == 2
    assert queue.next(1) is None
