"""Choosing thresholds, on episodes worked by hand."""

import numpy as np
import pytest

from vlac_gym.report_card.sweep import StopTable, SweepPoint, cross_validate, recommend, rule_grid
from vlac_gym.report_card.termination import Checks, StopRule, apply_rule, termination_metrics


def episode(probs: list[float], first_success: int | None, task: str = "a") -> Checks:
    success = np.zeros(len(probs) + 1, bool)
    if first_success is not None:
        success[first_success:] = True
    return Checks(np.arange(1, len(probs) + 1), np.array(probs), success, task)


EPISODES = [
    episode([0.1, 0.6, 0.1, 0.95, 0.95], first_success=4),
    episode([0.7, 0.1, 0.7, 0.7, 0.8], first_success=3),
    episode([0.1, 0.65, 0.1, 0.1, 0.1], first_success=None),
    episode([0.1, 0.1, 0.1, 0.1, 0.3], first_success=None),
]


def test_the_table_agrees_with_the_rule_applied_one_by_one() -> None:
    rules = rule_grid(EPISODES)
    table = StopTable(EPISODES, rules)
    for row, point in enumerate(table.points()):
        stops = [apply_rule(checks, rules[row]) for checks in EPISODES]
        assert [s.step for s in stops] == [None if x < 0 else x for x in table.stops[row].tolist()]
        metrics = termination_metrics(stops)
        assert point.false_positive_rate == metrics["false_positive_rate"].value
        assert point.premature_stop_rate == metrics["premature_stop_rate"].value
        assert point.miss_rate == metrics["miss_rate"].value
        assert point.delay_steps_median == metrics["delay_steps_median"].value


def test_minimum_steps_to_try_follow_the_earliest_success() -> None:
    assert {rule.min_steps for rule in rule_grid(EPISODES)} == {0, 1, 2}  # success at 3: 0, 3 // 2, 27 // 10


def test_one_rule_by_hand() -> None:
    # Single checks at 0.6: stops at 2 (before success), 1 (before success), 2 (never succeeds), never.
    (point,) = StopTable(EPISODES, [StopRule(0.6)]).points()
    assert point == SweepPoint(StopRule(0.6), 0.5, 1.0, 0.0, None)
    # Two in a row at 0.7: stops at 5 (one step after success), 4 (one step after), never, never.
    (point,) = StopTable(EPISODES, [StopRule(0.7, patience=2)]).points()
    assert point == SweepPoint(StopRule(0.7, 2), 0.0, 0.0, 0.0, 1.0)


def point(
    threshold: float, false: float, early: float, missed: float, delay: float | None = 0.0, patience: int = 1
) -> SweepPoint:
    return SweepPoint(StopRule(threshold, patience), false, early, missed, delay)


@pytest.mark.parametrize(
    ("points", "budget", "chosen"),
    [
        ([point(0.5, 0.04, 0.0, 0.0), point(0.9, 0.03, 0.0, 0.2)], 0.03, 1),  # the budget comes first
        ([point(0.5, 0.0, 0.2, 0.0), point(0.9, 0.0, 0.0, 0.4)], 0.03, 1),  # early stops count as false stops
        ([point(0.5, 0.0, 0.0, 0.1), point(0.9, 0.03, 0.0, 0.0)], 0.03, 1),  # then few misses
        ([point(0.5, 0.0, 0.0, 0.0, 5.0), point(0.9, 0.02, 0.0, 0.0, 2.0)], 0.03, 1),  # then a short delay
        ([point(0.5, 0.02, 0.0, 0.0), point(0.9, 0.0, 0.0, 0.0)], 0.03, 1),  # then few false stops
        ([point(0.9, 0.0, 0.0, 0.0, patience=2), point(0.5, 0.0, 0.0, 0.0)], 0.03, 1),  # then little patience
        ([point(0.5, 0.0, 0.0, 0.0), point(0.95, 0.0, 0.0, 0.0)], 0.03, 1),  # then a threshold near 0.9
        (
            [point(0.5, 0.5, 0.0, 0.0), point(0.9, 0.2, 0.1, 1.0)],
            0.03,
            1,
        ),  # no rule fits: the fewest false stops
    ],
)
def test_the_best_rule_within_the_budget_is_recommended(
    points: list[SweepPoint], budget: float, chosen: int
) -> None:
    assert recommend(points, budget) == points[chosen]
    assert recommend(points[::-1], budget) == points[chosen]


def test_held_out_tasks_do_not_choose_their_own_rule() -> None:
    easy = [episode([0.1, 0.9, 0.9], 2, "easy"), episode([0.1, 0.1, 0.1], None, "easy")]
    # On its own the hard task would be given a threshold above 0.95; the easy one knows nothing of it.
    hard = [episode([0.1, 0.99, 0.99], 2, "hard"), episode([0.1, 0.95, 0.1], None, "hard")]
    table = StopTable(easy + hard, [StopRule(0.9), StopRule(0.97)])
    held_out = cross_validate(table, budget=0.03)
    # easy is judged by 0.97 (chosen on hard) and misses; hard by 0.9 (chosen on easy) and stops falsely.
    assert {name: estimate.value for name, estimate in held_out.items()} == {
        "false_positive_rate": 0.5, "premature_stop_rate": 0.0, "miss_rate": 0.5,
    }  # fmt: skip
    assert cross_validate(StopTable(easy, [StopRule(0.9)]), 0.03) == {}
