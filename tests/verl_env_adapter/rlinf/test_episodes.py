"""What an env's word becomes in RLinf's terms: `EpisodeTally.take` by hand-worked cases, numpy alone."""

import numpy as np
import pytest

from verl_env_adapter.rlinf.episodes import EpisodeTally, end_flags, episode_metrics
from verl_env_adapter.rlinf.starts import ResetState

COUNTERS = {"critic/retries": 3, "critic/failovers": 2}


def episode(mode="train"):
    start = ResetState(state_id=0, task_id=None, init_state_id=None, seed=0)
    return EpisodeTally(start, mode, "put the bowl on the plate")


def take(running, rewards=(0.5,), *, terminated=False, truncated=False, success=None, info=None):
    running.take(
        np.array(rewards),
        terminated=terminated,
        truncated=truncated,
        success=success,
        info=info or {},
    )


@pytest.mark.parametrize("info", [{"critic": {"failed": True}}, {"lost_reason": "the worker died"}])
def test_unpaid_end_stays_unpaid_while_the_env_waits_for_its_reset(info):
    running = episode()
    take(running, [], truncated=True, info=info)
    take(running, [], truncated=True)
    assert (running.terminated, running.truncated) == (False, True)
    assert running.critic_failed == ("critic" in info)
    assert running.is_lost == ("lost_reason" in info)


def test_success_that_passes_within_a_chunk_is_remembered():
    running = episode("eval")
    take(running, success=True, info={"success": False})
    take(running, success=False, info={"success": False})
    assert running.sim_success is True


def test_steps_and_return_add_up_and_successes_stay():
    running = episode("eval")
    take(running, [0.0, 0.25], info={"success": True})
    take(running, [0.5], info={"success": False})
    assert (running.executed_steps, running.episode_return) == (3, 0.75)
    metrics = episode_metrics([running], "eval", COUNTERS)
    assert {key: value.tolist() for key, value in metrics.items()} == {
        "return": [0.75],
        "episode_len": [3.0],
        "reward": [0.25],
        "lost": [0.0],
        "critic_mode": [0.0],
        "success_once": [True],
    }


def test_critics_done_and_simulators_success_are_told_apart():
    done, missed, right = episode(), episode(), episode()
    take(done, [1.0], terminated=True, info={"critic": {"stopped_by": "value"}, "sim_success": False})
    take(missed, [0.0], info={"critic": {"stopped_by": None}, "sim_success": True, "success": False})
    take(right, [1.0], terminated=True, info={"critic": {"stopped_by": "success_prob"}, "sim_success": True})
    metrics = episode_metrics([done, missed, right], "train", COUNTERS)
    assert metrics["critic_done"].tolist() == [1.0, 0.0, 1.0]
    assert metrics["sim_success"].tolist() == [0.0, 1.0, 1.0]
    assert metrics["critic_false_positive"].tolist() == [1.0, 0.0, 0.0]
    assert metrics["critic_retries"].tolist() == [3.0] * 3
    assert metrics["critic_failovers"].tolist() == [2.0] * 3
    assert "success_once" not in metrics


def test_end_flags_begin_at_the_ending_step_and_cover_chunks_after_it():
    ended, before, running = episode(), episode(), episode()
    take(ended, [0.0, 1.0], terminated=True)
    take(before, [], truncated=True)
    terminations, truncations = end_flags(
        [ended, before, running], [2, 0, 3], 3, step_limit=None, in_last_column=False
    )
    assert terminations.tolist() == [[False, True, True], [False] * 3, [False] * 3]
    assert truncations.tolist() == [[False] * 3, [True] * 3, [False] * 3]
    terminations, truncations = end_flags(
        [ended, before, running], [2, 0, 3], 3, step_limit=None, in_last_column=True
    )
    assert terminations.tolist() == [[False, False, True], [False] * 3, [False] * 3]
    assert truncations.tolist() == [[False] * 3, [False, False, True], [False] * 3]
