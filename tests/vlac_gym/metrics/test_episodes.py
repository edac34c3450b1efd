import math

import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.metrics.episodes import METRIC_NAMES, EpisodeMetrics


def test_no_episodes_give_no_numbers_rather_than_zeros():
    result = EpisodeMetrics().compute()

    assert result.pop("critic/failures") == 0.0
    assert list(result.values()) == [None] * 7


def test_hand_worked_episodes_add_up():
    metrics = EpisodeMetrics()
    metrics.add(num_steps=10, episode_return=1.0, sim_success=True, critic_said_done=True, success_prob=0.9)
    metrics.add(num_steps=20, episode_return=1.0, sim_success=False, critic_said_done=True, latency_ms=4.0)
    metrics.add(num_steps=30, episode_return=0.5, sim_success=True, critic_said_done=False, latency_ms=2.0)
    metrics.add(
        num_steps=40, episode_return=0.1, sim_success=False, critic_said_done=False, critic_failures=3
    )

    assert metrics.compute() == {
        "env/success_rate": 0.5,
        "env/episode_length": 25.0,
        "rollout/reward_mean": pytest.approx(0.65),
        "critic/success_prob": 0.9,
        "critic/latency_ms": 3.0,
        "critic/false_positive_rate": 0.5,
        "critic/false_negative_rate": 0.5,
        "critic/failures": 3.0,
    }


def test_eval_episodes_say_nothing_about_the_critic():
    metrics = EpisodeMetrics()
    metrics.add(num_steps=5, episode_return=1.0, sim_success=True)

    result = metrics.compute()
    assert result["critic/false_negative_rate"] is None
    assert result["critic/false_positive_rate"] is None


def test_every_name_has_a_meaning_and_a_prefix():
    assert set(EpisodeMetrics().compute()) == set(METRIC_NAMES)
    assert all(
        name.split("/")[0] in ("env", "rollout", "critic") and text for name, text in METRIC_NAMES.items()
    )


@pytest.mark.parametrize(("num_steps", "episode_return"), [(0, 1.0), (3, math.nan), (3, math.inf)])
def test_impossible_episodes_are_refused(num_steps, episode_return):
    with pytest.raises(ConfigError, match="num_steps >= 1 and a finite return"):
        EpisodeMetrics().add(num_steps=num_steps, episode_return=episode_return, sim_success=True)
