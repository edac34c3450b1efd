"""Which starts RLinf's envs get: hand-worked lists for two tasks of two and three trials."""

import pytest

from verl_env_adapter.common.settings import EnvSettings
from verl_env_adapter.rlinf.starts import ResetStates, task_trials
from vlac_gym.errors import ConfigError

TRIALS = [(4, 2), (7, 3)]  # state ids 0, 1 are task 4; 2, 3, 4 are task 7


def ids(states, count):
    return [start.state_id if start else None for start in states.next_groups(count)]


def test_state_ids_count_through_the_tasks():
    states = ResetStates(TRIALS)
    found = [(start.task_id, start.init_state_id) for start in map(states.start_of, range(5))]
    assert found == [(4, 0), (4, 1), (7, 0), (7, 1), (7, 2)]


def test_evaluation_takes_tasks_in_turn_each_state_once():
    states = ResetStates(TRIALS, order="once")
    assert ids(states, 7) == [0, 2, 1, 3, 4, None, None]


def test_evaluation_deals_states_to_ranks_round_robin():
    shares = [ids(ResetStates(TRIALS, order="once", share=(rank, 2)), 3) for rank in range(2)]
    assert shares == [[0, 1, 4], [2, 3, None]]


def test_every_evaluation_plays_the_same():
    states = ResetStates(TRIALS, order="once")
    first = states.next_groups(3)
    states.restart()
    assert states.next_groups(3) == first


def test_a_group_starts_alike():
    starts = ResetStates(TRIALS, group_size=3).next_groups(2)
    assert len(starts) == 6
    assert starts[0] == starts[1] == starts[2]
    assert starts[3] == starts[4] == starts[5]


def test_ordered_training_walks_all_states_before_any_again():
    states = ResetStates(TRIALS, order="shuffled")
    assert sorted(ids(states, 5)) == [0, 1, 2, 3, 4]
    assert sorted(ids(states, 5)) == [0, 1, 2, 3, 4]


def test_ordered_training_ranks_share_the_states_without_overlap():
    shares = [ids(ResetStates(TRIALS, order="shuffled", share=(r, 2)), 2 + (r == 0)) for r in (0, 1)]
    assert sorted(shares[0] + shares[1]) == [0, 1, 2, 3, 4]


def test_fewer_states_than_ranks_still_serve_every_rank():
    shares = [ids(ResetStates([(0, 1)], order="shuffled", share=(rank, 3)), 1) for rank in range(3)]
    assert shares == [[0], [0], [0]]


def test_drawing_repeats_by_seed_and_differs_by_rank():
    first = ids(ResetStates(TRIALS, seed=3), 20)
    assert ids(ResetStates(TRIALS, seed=3), 20) == first
    assert ids(ResetStates(TRIALS, seed=3, share=(1, 2)), 20) != first


def test_held_out_trials_are_dealt_to_their_phase_only_under_the_same_numbers():
    train, held_out = {0, 1}, {1}
    assert set(ids(ResetStates(TRIALS, trials_played=train), 50)) == {0, 1, 2, 3}
    ordered = ResetStates(TRIALS, order="shuffled", trials_played=train)
    assert sorted(ids(ordered, 4)) == [0, 1, 2, 3]
    evaluation = ResetStates(TRIALS, order="once", trials_played=held_out)
    assert ids(evaluation, 3) == [1, 3, None]
    with pytest.raises(ConfigError, match=r"env.init_states in 0\.\.1 for task 4, got 2"):
        ResetStates(TRIALS, trials_played={2})


def test_a_task_of_worlds_is_dealt_its_own_states_under_the_same_numbers():
    assert set(ids(ResetStates(TRIALS, task_id=7), 50)) == {2, 3, 4}
    evaluation = ResetStates(TRIALS, order="once", task_id=7, trials_played={0, 1})
    assert ids(evaluation, 3) == [2, 3, None]
    shares = [ids(ResetStates(TRIALS, order="once", task_id=7, share=(r, 2)), 2) for r in (0, 1)]
    assert shares == [[2, 4], [3, None]]
    with pytest.raises(ConfigError, match=r"no specific_reset_id .* got 1 of task 4: a world keeps its task"):
        ResetStates(TRIALS, task_id=7, fixed_id=1)
    assert ids(ResetStates(TRIALS, task_id=4, fixed_id=1), 2) == [1, 1]


def test_same_state_has_another_seed_at_the_next_visit():
    states = ResetStates(TRIALS, fixed_id=2)
    first, second = states.next_groups(2)
    assert (first.state_id, second.state_id) == (2, 2)
    assert first.seed != second.seed


def test_unknown_states_are_refused():
    with pytest.raises(ConfigError, match=r"specific_reset_id in 0\.\.4"):
        ResetStates(TRIALS, fixed_id=5)
    with pytest.raises(ConfigError, match=r"reset state id in 0\.\.4, got 9"):
        ResetStates(TRIALS).start_of(9)


def test_starts_of_libero_are_its_initial_states():
    pytest.importorskip("libero")
    assert task_trials(EnvSettings(suite="libero_spatial", tasks=(0, 3))) == [(0, 50), (3, 50)]
    with pytest.raises(ConfigError, match=r"env.tasks of libero_spatial in 0\.\.9, got 10"):
        task_trials(EnvSettings(suite="libero_spatial", tasks=(10,)))


def test_other_envs_start_from_seeds():
    assert task_trials(EnvSettings(id="CartPole-v1")) == [(None, 1000)]
    start = ResetStates([(None, 1000)]).start_of(12)
    assert (start.task_id, start.init_state_id, start.seed) == (None, None, 12)


def test_an_unknown_order_is_refused():
    with pytest.raises(ConfigError, match=r"Unknown order 'suffled'.*Did you mean 'shuffled'"):
        ResetStates(TRIALS, order="suffled")  # type: ignore[arg-type]
