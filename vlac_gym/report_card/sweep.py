"""Choosing thresholds for a false-stop budget: `rule_grid`, `StopTable`, `recommend`, `cross_validate`."""

__all__ = ["StopTable", "SweepPoint", "cross_validate", "recommend", "rule_grid"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlac_gym.report_card.statistics import Estimate, rate
from vlac_gym.report_card.termination import Checks, StopRule, done_runs, stop_step

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


class StopTable:
    """Where each rule stops each episode, computed once; subsets of the episodes share it.

    Args:
        episodes: N episodes.
        rules: R rules.

    Attributes:
        stops: int (R, N), step of the stop, -1 without one.
        firsts: int (N,), step of first success, -1 without one.
        clusters: str (N,), the task of each episode.
    """

    def __init__(self, episodes: Sequence[Checks], rules: Sequence[StopRule]) -> None:
        self.rules = tuple(rules)
        self.stops = np.full((len(rules), len(episodes)), -1, np.int64)
        for column, checks in enumerate(episodes):
            runs = {t: done_runs(checks.probs, t) for t in {rule.threshold for rule in rules}}
            for row, rule in enumerate(rules):
                step = stop_step(checks.steps, runs[rule.threshold], rule)
                self.stops[row, column] = -1 if step is None else step
        firsts = [checks.first_success_step for checks in episodes]
        self.firsts = np.array([-1 if first is None else first for first in firsts], np.int64)
        self.clusters = np.array([checks.cluster for checks in episodes])

    def points(self, chosen: NDArray[np.bool_] | None = None) -> list[SweepPoint]:
        """What each rule would have done to the chosen episodes, which hold successes and failures."""
        keep = np.ones(self.firsts.size, bool) if chosen is None else chosen
        stops, firsts = self.stops[:, keep], self.firsts[keep]
        stopped, succeeds = stops >= 0, firsts >= 0
        early = stopped & succeeds & (stops < firsts)
        late = stopped & succeeds & ~early
        failing, succeeding = max(1, int((~succeeds).sum())), max(1, int(succeeds.sum()))
        false_positive = (stopped & ~succeeds).sum(axis=1) / failing
        premature = early.sum(axis=1) / succeeding
        missed = (~stopped & succeeds).sum(axis=1) / succeeding
        return [
            SweepPoint(
                rule=rule,
                false_positive_rate=float(false_positive[i]),
                premature_stop_rate=float(premature[i]),
                miss_rate=float(missed[i]),
                delay_steps_median=float(np.median((stops - firsts)[i, late[i]])) if late[i].any() else None,
            )
            for i, rule in enumerate(self.rules)
        ]


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


def cross_validate(table: StopTable, budget: float) -> dict[str, Estimate]:
    """False-positive, premature-stop and miss rate on tasks that the choice of the rule did not see.

    Each task in turn is held out, the rule is chosen on the others and frozen. Empty with fewer than two
    tasks; a task is left out if the others lack successes or failures.
    """
    stops = np.full(table.firsts.size, -1)
    judged = np.zeros(table.firsts.size, bool)
    for task in np.unique(table.clusters):
        here = table.clusters == task
        rest = table.firsts[~here] >= 0
        if rest.any() and not rest.all():
            row = table.rules.index(recommend(table.points(~here), budget).rule)
            stops[here] = table.stops[row, here]
            judged |= here
    if not judged.any():
        return {}
    succeeds = table.firsts >= 0
    failing, succeeding = judged & ~succeeds, judged & succeeds
    early = succeeding & (stops >= 0) & (stops < table.firsts)
    return {
        "false_positive_rate": rate(
            int((stops[failing] >= 0).sum()), int(failing.sum()), of="failed episodes"
        ),
        "premature_stop_rate": rate(int(early.sum()), int(succeeding.sum()), of="successful episodes"),
        "miss_rate": rate(
            int((stops[succeeding] < 0).sum()), int(succeeding.sum()), of="successful episodes"
        ),
    }
