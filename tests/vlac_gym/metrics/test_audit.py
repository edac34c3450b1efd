import json
import math
from functools import partial

import pytest

from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError
from vlac_gym.metrics.audit import AUDIT_METRIC_NAMES, CriticAudit
from vlac_gym.metrics.episodes import EpisodeMetrics
from vlac_gym.metrics.writer import MetricsWriter
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.vector.finished import EpisodeLog
from vlac_gym.wrappers.vector import VLACRewardWrapper


def add(audit, *episodes):
    """Episodes as (return, simulator's success, critic said done)."""
    for episode_return, success, done in episodes:
        audit.add(num_steps=5, episode_return=episode_return, sim_success=success, critic_said_done=done)


def test_hand_worked_confusion_rewards_and_gap():
    audit = CriticAudit(window=10)
    add(
        audit,
        (1.0, True, True),
        (1.0, True, True),
        (0.7, True, False),
        (1.0, False, True),
        (0.5, False, False),
    )

    numbers = audit.compute()
    assert numbers["critic/done_rate"] == 0.6
    counts = ("right_stops", "wrong_stops", "missed_successes", "right_failures")
    assert [numbers[f"critic/{name}"] for name in counts] == [2.0, 1.0, 1.0, 1.0]
    assert numbers["critic/wrong_stops_per_100"] == numbers["critic/missed_per_100"] == 20.0
    assert numbers["critic/reward_of_success"] == pytest.approx(0.9)
    assert numbers["critic/reward_of_failure"] == 0.75
    assert numbers["critic/contrast"] == pytest.approx(1.2)
    assert numbers["critic/proxy_gap"] == pytest.approx(0.84 - 0.6)
    assert numbers["critic/alarm"] is None


def test_only_the_latest_episodes_count():
    audit = CriticAudit(window=2)
    add(audit, (1.0, False, True), (1.0, True, True), (0.25, False, False))

    numbers = audit.compute()
    assert (numbers["critic/wrong_stops"], numbers["critic/right_stops"]) == (0.0, 1.0)
    assert numbers["critic/contrast"] == 4.0


def test_no_episodes_give_no_numbers():
    numbers = CriticAudit().compute()
    assert list(numbers) == list(AUDIT_METRIC_NAMES)
    assert set(numbers.values()) == {None}


def test_without_the_simulators_verdict_only_the_critics_word_is_reported():
    audit = CriticAudit(window=2)
    add(audit, *[(1.0, None, True), (0.5, None, False)] * 2)

    numbers = audit.compute()
    assert numbers.pop("critic/done_rate") == 0.5
    assert set(numbers.values()) == {None}
    assert audit.alarm_text() is None


def test_failures_that_are_paid_nothing_have_no_contrast():
    audit = CriticAudit()
    add(audit, (1.0, True, True), (0.0, False, False))
    assert audit.compute()["critic/contrast"] is None
    assert audit.compute()["critic/reward_of_failure"] == 0.0


def test_episodes_of_eval_mode_have_no_confusion():
    audit = CriticAudit()
    add(audit, (1.0, True, None))
    numbers = audit.compute()
    assert numbers["critic/right_stops"] is None
    assert numbers["critic/done_rate"] is None
    assert numbers["critic/proxy_gap"] == 0.0


# 100 episodes each: success 60 -> 40 %, variance 0.24 on both sides, standard error sqrt(0.0048) = 0.0693: z = -2.887.
# Returns 0.5 and 0.7 in halves (mean 0.6), then 0.6 and 0.8 (0.7): variance 0.01, error sqrt(0.0002): z = 7.071.
BEFORE = [(0.5 + 0.2 * (i % 2), i < 60, False) for i in range(100)]
AFTER = [(0.6 + 0.2 * (i % 2), i < 40, False) for i in range(100)]


@pytest.mark.parametrize(("alarm_z", "is_raised"), [(2.88, 1.0), (2.89, 0.0)])
def test_the_alarm_needs_the_fall_in_standard_errors(alarm_z, is_raised):
    audit = CriticAudit(window=100, alarm_z=alarm_z)
    add(audit, *BEFORE)
    assert audit.compute()["critic/alarm"] is None
    add(audit, *AFTER)
    assert audit.compute()["critic/alarm"] == is_raised


def test_the_alarm_says_what_rose_and_what_fell():
    audit = CriticAudit(window=100)
    add(audit, *BEFORE, *AFTER)
    assert "return rose from 0.60 to 0.70" in audit.alarm_text()
    assert "success fell from 60% to 40% since the first 100 episodes" in audit.alarm_text()


@pytest.mark.parametrize("after", [BEFORE, [(r, s, d) for (r, _, _), (_, s, d) in zip(BEFORE, AFTER)]])
def test_no_alarm_while_the_return_does_not_rise(after):
    audit = CriticAudit(window=100)
    add(audit, *BEFORE, *after)
    assert audit.compute()["critic/alarm"] == 0.0
    assert audit.alarm_text() is None


def test_no_alarm_while_success_rises_too():
    audit = CriticAudit(window=100)
    add(audit, *[(r, not s, d) for r, s, d in BEFORE], *[(r, not s, d) for r, s, d in AFTER])
    assert audit.compute()["critic/alarm"] == 0.0


def test_a_policy_that_improved_first_and_was_fooled_later_is_found_against_the_window_before():
    audit = CriticAudit(window=100)
    add(audit, *[(0.5, i < 40, False) for i in range(100)], *BEFORE, *AFTER)
    assert "since the previous 100 episodes" in audit.alarm_text()


def test_slow_drift_is_found_against_the_first_window():
    audit = CriticAudit(window=100)
    for k in range(11):  # each window 2 points of success less, 0.01 of return more: within the noise of one
        add(audit, *[(0.5 + 0.01 * k + 0.2 * (i % 2), i < 60 - 2 * k, False) for i in range(100)])
    assert "since the first 100 episodes" in audit.alarm_text()


def test_a_reloaded_audit_goes_on_with_the_same_numbers():
    whole, first = CriticAudit(window=100), CriticAudit(window=100)
    add(whole, *BEFORE, *AFTER)
    add(first, *BEFORE)
    second = CriticAudit(window=100)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    add(second, *AFTER)
    assert second.compute() == whole.compute()


@pytest.mark.parametrize(
    "options", [{"window": 0}, {"window": True}, {"alarm_z": 0.0}, {"alarm_z": math.nan}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=r"window as an int >= 1|alarm_z above 0"):
        CriticAudit(**options)


def test_an_impossible_return_is_refused():
    with pytest.raises(ConfigError, match="finite return"):
        add(CriticAudit(), (math.nan, True, True))


def test_finished_episodes_feed_the_audit_and_the_metrics_alike(tmp_path):
    """Env 0 succeeds at step 1, env 1 never; the critic stops env 0 at step 1 and env 1, wrongly, at step 2."""
    fns = [partial(ScriptedEnv, success_steps=[1]), partial(ScriptedEnv)]
    env = VLACRewardWrapper(
        RolloutVectorEnv(fns, mode="sync", autoreset_mode="Disabled"), "scripted:0.95,0.1,0.95"
    )
    log, metrics, audit = EpisodeLog(env), EpisodeMetrics(), CriticAudit()
    env.reset(seed=0)
    for _ in range(2):
        for episode in log.add(*env.step(env.action_space.sample())[1:]):
            episode.add_to(metrics)
            episode.add_to(audit)
    env.close()
    with MetricsWriter(tmp_path) as writer:
        writer.write(2, metrics.compute() | audit.compute())

    written = json.loads((tmp_path / "metrics.jsonl").read_text())["metrics"]
    assert (written["critic/right_stops"], written["critic/wrong_stops"]) == (1.0, 1.0)
    assert written["critic/proxy_gap"] == 0.5
    assert written["env/success_rate"] == 0.5
