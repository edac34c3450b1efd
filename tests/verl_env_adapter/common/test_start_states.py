"""Start states: numbering, the evaluation's dealing over processes and envs, restrictions."""

import pytest

from verl_env_adapter.common.env_settings import EnvSettings
from verl_env_adapter.common.start_states import StartPlan, start_counts
from vlac_gym.errors import ConfigError

COUNTS = {0: 2, 1: 3}


def pairs(states):
    return [(state.task_id, state.init_state_id) for state in states]


def test_states_are_numbered_over_the_suite():
    plan = StartPlan(COUNTS, None, seed=0)
    assert pairs([plan.by_id(i) for i in range(5)]) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    with pytest.raises(ConfigError, match=r"state id in 0\.\.4, got 5"):
        plan.by_id(5)


def test_each_evaluation_episode_goes_to_one_env_of_one_process():
    # 5 episodes over 2 processes of 2 envs: rounds of 4, the list starts anew in the second round.
    queues = [
        StartPlan(COUNTS, None, seed=0, process=p, num_processes=2, num_envs=2).next_eval(4) for p in (0, 1)
    ]
    assert [[state.eval_episode_id for state in queue] for queue in queues] == [[0, 1, 4, 0], [2, 3, 1, 2]]


def test_evaluation_restarts():
    plan = StartPlan(COUNTS, None, seed=0)
    assert [state.eval_episode_id for state in plan.next_eval(2)] == [0, 1]
    plan.restart_eval()
    assert [state.eval_episode_id for state in plan.next_eval(6)] == [0, 1, 2, 3, 4, 0]


def test_tasks_and_their_states_can_be_restricted():
    assert StartPlan(COUNTS, [1], seed=0).num_states == 3
    assert pairs(StartPlan(COUNTS, None, seed=0, max_states_per_task=1).next_eval(2)) == [(0, 0), (1, 0)]
    only = StartPlan(COUNTS, None, seed=0, only_state_id=3)
    assert pairs(only.draw(2)) == [(1, 1), (1, 1)]
    assert pairs([only.by_id(0)]) == [(0, 0)]  # a replay names any state of the suite
    with pytest.raises(ConfigError, match="state_id 3 is in none"):
        StartPlan(COUNTS, [0], seed=0, only_state_id=3)
    with pytest.raises(ConfigError, match=r"among 0\.\.1, got \[7\]"):
        StartPlan(COUNTS, [7], seed=0)


def test_draws_follow_the_seed_and_differ_between_processes():
    def draws(seed, process):
        plan = StartPlan({0: 50}, None, seed=seed, process=process, num_processes=2)
        return [state.init_state_id for state in plan.draw(20)]

    assert draws(0, 0) == draws(0, 0)
    assert draws(0, 0) != draws(1, 0)
    assert draws(0, 0) != draws(0, 1)
    assert all(state.eval_episode_id == -1 for state in StartPlan(COUNTS, None, seed=0).draw(5))


def test_libero_suites_are_counted_without_a_simulator():
    assert start_counts(EnvSettings(suite="libero_spatial")) == dict.fromkeys(range(10), 50)
