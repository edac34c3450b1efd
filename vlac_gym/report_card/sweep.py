"""Choosing thresholds for a false-stop budget: `sweep`, `SweepPoint`, `recommend`, `cross_validate`."""

__all__ = ["SweepPoint", "cross_validate", "recommend", "rule_grid", "sweep"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlac_gym.report_card.statistics import Estimate, rate
from vlac_gym.report_card.termination import Checks, Stop, StopRule, apply_rule, termination_metrics

DEFAULT_THRESHOLD = 0.9
THRESHOLDS = (
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.65,
    0.7,
    0.75,
    0.8,
    0.85,
    0.9,
    0.95,
    0.97,
    0.98,
    0.99,
    0.995,
    0.999,
)
PATIENCES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class SweepPoint:
    """One rule and what it did.

    Attributes:
        rule: The rule.
        false_positive_rate: Stopped / failed episodes.
        premature_stop_rate: Stopped before success / successful episodes.
        miss_rate: Never stopped / successful episodes.
        delay_steps_median: Env steps from success to the stop, None if no episode is stopped after it.
    """

    rule: StopRule
    false_positive_rate: float
    premature_stop_rate: float
    miss_rate: float
    delay_steps_median: float | None

    def is_within(self, budget: float) -> bool:
        """Whether neither failed nor successful episodes are stopped falsely more often than `budget`."""
        return max(self.false_positive_rate, self.premature_stop_rate) <= budget


def rule_grid(episodes: Sequence[Checks]) -> list[StopRule]:
    """Rules to try: thresholds, patiences, and no stop before 0, 50 % or 90 % of the earliest success."""
    firsts = [first for first in (e.first_success_step for e in episodes) if first is not None]
    earliest = min(firsts, default=0)
    floors = sorted({0, earliest // 2, earliest * 9 // 10})
    return [StopRule(t, p, m) for m in floors for p in PATIENCES for t in THRESHOLDS]


def sweep(episodes: Sequence[Checks], rules: Sequence[StopRule]) -> list[SweepPoint]:
    """What each rule would have done to the recorded episodes, which hold successes and failures."""
    points = []
    for rule in rules:
        metrics = termination_metrics([apply_rule(checks, rule) for checks in episodes])
        values = {
            name: metrics[name].value for name in ("false_positive_rate", "premature_stop_rate", "miss_rate")
        }
        points.append(
            SweepPoint(
                rule=rule,
                delay_steps_median=metrics["delay_steps_median"].value,
                **{name: 0.0 if value is None else value for name, value in values.items()},
            )
        )
    return points


def recommend(points: Sequence[SweepPoint], budget: float) -> SweepPoint:
    """The rule within the budget that misses least; if none is, the one nearest to it.

    Ties go, in this order, to the shorter delay, fewer false stops, less patience, the smaller minimum, and
    the threshold nearest to 0.9.
    """
    allowed = [point for point in points if point.is_within(budget)]

    def cost(point: SweepPoint) -> tuple[float, ...]:
        delay = np.inf if point.delay_steps_median is None else point.delay_steps_median
        false_stops = point.false_positive_rate + point.premature_stop_rate
        rule = point.rule
        ties = (rule.patience, rule.min_steps, abs(rule.threshold - DEFAULT_THRESHOLD))
        lost = point.miss_rate + point.premature_stop_rate
        return (lost, delay, false_stops, *ties) if allowed else (false_stops, point.miss_rate, delay, *ties)

    return min(allowed or points, key=cost)


def cross_validate(
    episodes: Sequence[Checks], rules: Sequence[StopRule], budget: float
) -> dict[str, Estimate]:
    """False-positive, premature-stop and miss rate on tasks that the choice of the rule did not see.

    Each task in turn is held out, the rule is chosen on the others and frozen. Empty with fewer than two
    tasks; a task is left out if the others lack successes or failures.
    """
    stops: list[Stop] = []
    tasks = sorted({checks.cluster for checks in episodes})
    for task in tasks:
        rest = [checks for checks in episodes if checks.cluster != task]
        outcomes = {checks.first_success_step is not None for checks in rest}
        if outcomes == {True, False}:
            rule = recommend(sweep(rest, rules), budget).rule
            stops += [apply_rule(checks, rule) for checks in episodes if checks.cluster == task]
    if not stops:
        return {}
    failing = [stop for stop in stops if stop.first_success_step is None]
    succeeding = [stop for stop in stops if stop.first_success_step is not None]
    return {
        "false_positive_rate": rate(
            sum(s.step is not None for s in failing), len(failing), of="failed episodes"
        ),
        "premature_stop_rate": rate(
            sum(s.is_false for s in succeeding), len(succeeding), of="successful episodes"
        ),
        "miss_rate": rate(sum(s.step is None for s in succeeding), len(succeeding), of="successful episodes"),
    }
