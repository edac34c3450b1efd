"""Online stopping on episodes worked by hand, and against the rule that the reward wrapper uses."""

import numpy as np
import pytest

from vlac_gym.report_card.termination import (
    Checks,
    StopRule,
    apply_rule,
    episode_fpr_if_independent,
    lag_one_autocorrelation,
    termination_metrics,
)
from vlac_gym.rule.episode import RuleEpisode
from vlac_gym.rule.reward import TrainingRule
from vlac_gym.rule.round import OpenStep


def checks(
    probs: list[float], first_success: int | None, *, every: int = 2, lost_at: int | None = None
) -> Checks:
    steps = np.arange(every, every * len(probs) + 1, every)
    success = np.zeros(steps[-1] + 1, bool)
    if first_success is not None:
        success[first_success:lost_at] = True
    return Checks(steps, np.array(probs), success, "task")


PROBS = [0.1, 0.95, 0.2, 0.9, 0.91, 0.99]  # at steps 2 4 6 8 10 12


@pytest.mark.parametrize(
    ("rule", "stop"),
    [
        (StopRule(0.9), 4),
        (StopRule(0.9, patience=2), 10),
        (StopRule(0.9, patience=3), 12),
        (StopRule(0.9, patience=4), None),
        (StopRule(0.9, min_steps=5), 8),
        (StopRule(0.9, patience=2, min_steps=11), 12),
        (StopRule(0.96), 12),
        (StopRule(1.0), None),
    ],
)
def test_a_rule_stops_where_the_training_rule_stops(rule: StopRule, stop: int | None) -> None:
    recorded = checks(PROBS, first_success=9)
    assert apply_rule(recorded, rule).step == stop

    frame = np.zeros((1, 1, 3), np.uint8)
    training = TrainingRule(
        done_threshold=rule.threshold, done_patience=rule.patience, done_interval=2, min_steps=rule.min_steps
    )
    episode = RuleEpisode(training, "task", frame, max_buffer_bytes=10**6)
    stopped = None
    for step in range(1, 13):
        taken = OpenStep(episode.step(None, look=lambda: frame), "task")
        if taken.question is not None:
            taken.answer(PROBS[step // 2 - 1])
        if taken.verdict.terminated:
            stopped = step
            break
    assert stopped == stop


def test_a_stop_knows_what_it_was_worth() -> None:
    early = apply_rule(checks(PROBS, first_success=9), StopRule(0.9))
    assert (early.is_false, early.delay_steps, early.succeeds_at_stop, early.checks_before) == (
        True,
        None,
        False,
        2,
    )
    right = apply_rule(checks(PROBS, first_success=9), StopRule(0.9, patience=2))
    assert (right.is_false, right.delay_steps, right.succeeds_at_stop, right.checks_before) == (
        False,
        1,
        True,
        4,
    )
    undone = apply_rule(checks(PROBS, first_success=7, lost_at=9), StopRule(0.9, patience=2))
    assert (undone.is_false, undone.delay_steps, undone.succeeds_at_stop) == (False, 3, False)
    never = apply_rule(checks([0.1, 0.2], first_success=None), StopRule(0.9))
    assert (never.step, never.is_false, never.checks_before) == (None, False, 2)


def test_no_answer_is_no_done() -> None:
    assert apply_rule(checks([np.nan, 0.95], None), StopRule(0.9, patience=2)).step is None


def test_termination_metrics_by_hand() -> None:
    rule = StopRule(0.9)
    stops = [
        apply_rule(checks([0.1, 0.1, 0.1, 0.95], first_success=6), rule),  # stop 8, delay 2, 2 checks before
        apply_rule(checks([0.1, 0.1, 0.95, 0.1], first_success=6), rule),  # stop 6, delay 0, 2 checks before
        apply_rule(checks([0.95, 0.1, 0.1, 0.1], first_success=6), rule),  # premature, 1 check
        apply_rule(checks([0.1, 0.1, 0.1, 0.1], first_success=6), rule),  # missed, 2 checks, runs on 2 steps
        apply_rule(checks([0.1, 0.95, 0.1, 0.1], first_success=None), rule),  # false positive, 2 checks
        apply_rule(checks([0.1, 0.1, 0.1, 0.1], first_success=None), rule),  # rightly never stopped, 4 checks
    ]
    metrics = {name: estimate.value for name, estimate in termination_metrics(stops).items()}
    assert metrics == {
        "false_stop_rate": 2 / 4,
        "false_positive_rate": 1 / 2,
        "premature_stop_rate": 1 / 4,
        "miss_rate": 1 / 4,
        "success_at_stop": 2 / 4,
        # 2 true stops; errors: 2 false stops, 1 miss, 1 success lost to a premature stop
        "f1": pytest.approx(4 / 8),
        "hazard_per_1000_checks": pytest.approx(1000 * 2 / 13),
        "delay_steps_median": 1.0,
        "delay_steps_p90": pytest.approx(1.8),
        "wasted_steps_mean": pytest.approx((2 + 0 + 2) / 3),
    }


def test_metrics_without_their_class_are_refused() -> None:
    failing = termination_metrics([apply_rule(checks([0.1, 0.1], None), StopRule(0.9))])
    for name in ("false_stop_rate", "premature_stop_rate", "miss_rate", "f1", "delay_steps_median"):
        assert failing[name].value is None, name
        assert failing[name].reason
    assert failing["false_positive_rate"].value == 0.0
    succeeding = termination_metrics([apply_rule(checks([0.1, 0.95], 3), StopRule(0.9))])
    assert succeeding["false_positive_rate"].reason == "there are no failed episodes"


def test_independent_errors_compound_over_looks() -> None:
    assert episode_fpr_if_independent(0.01, 32) == pytest.approx(1 - 0.99**32)
    assert episode_fpr_if_independent(0.5, 2, patience=2) == 0.25
    # three tries, a run of two: HH*, THH -> 1/4 + 1/8
    assert episode_fpr_if_independent(0.5, 3, patience=2) == 0.375
    assert episode_fpr_if_independent(0.01, 32, patience=2) == pytest.approx(0.0031, abs=1e-4)


def test_autocorrelation_pools_series_without_joining_them() -> None:
    assert lag_one_autocorrelation([[0, 1, 0, 1, 0], [1, 0, 1]]) == pytest.approx(-1.0)
    assert lag_one_autocorrelation([[0, 0, 1, 1, 1], [1, 1, 0, 0, 0]]) == pytest.approx(0.5)
    assert lag_one_autocorrelation([[0, 0], [1]]) is None
