"""Which episodes are played."""

import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.evaluation.starts import plan_episodes
from vlac_gym.rollout import EpisodeStart


def test_states_come_in_order_and_begin_again_with_seeds_of_their_own():
    planned = plan_episodes({2: 3, 5: 50}, 4, seed=7)
    assert [(s.task_id, s.episode, s.init_state_id) for s in planned] == [
        *[(2, 0, 0), (2, 1, 1), (2, 2, 2), (2, 3, 0)],
        *[(5, 0, 0), (5, 1, 1), (5, 2, 2), (5, 3, 3)],
    ]
    assert len({s.seed for s in planned}) == 8
    assert planned[1].start == EpisodeStart(planned[1].seed, {"task_id": 2, "init_state_id": 1})
    # A start does not depend on what else is played.
    assert plan_episodes({5: 50}, 2, seed=7) == planned[4:6]
    assert plan_episodes({5: 50}, 2, seed=8)[0].seed != planned[4].seed
    assert plan_episodes({5: 50}, 2, seed=7, first_episode=2) == planned[6:8]


@pytest.mark.parametrize(
    ("tasks", "episodes", "seed", "first"),
    [({}, 1, 0, 0), ({0: 1}, 0, 0, 0), ({0: 1}, 1, -1, 0), ({0: 1}, 1, 0, -1)],
)
def test_nothing_to_play_is_refused(tasks, episodes, seed, first):
    with pytest.raises(ConfigError, match="at least one task and one episode"):
        plan_episodes(tasks, episodes, seed, first)
