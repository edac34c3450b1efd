"""Statistics that every part of the report card shares, on plain arrays.

`Estimate` (a number with its interval, or the reason why there is none), `rate` (Wilson interval), `refused`,
`paired_difference` (of two rates over the same cases), `cluster_bootstrap`, `spearman`, `kendall_tau_a`, `auroc`,
`average_precision`, `squared_error`, `two_proportion_p_value`.
A quantity that is not defined is None or a refused `Estimate`; it is never 0. The textbook's formulas are scipy's and
scikit-learn's; tau-a and a bootstrap that draws whole clusters are in neither.
"""

__all__ = [
    "Estimate",
    "PairedDifference",
    "auroc",
    "average_precision",
    "cluster_bootstrap",
    "kendall_tau_a",
    "paired_difference",
    "rate",
    "refused",
    "spearman",
    "squared_error",
    "two_proportion_p_value",
]

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlac_gym.extras import needs
from vlac_gym.metrics.intervals import wilson_interval

with needs("A report card", "report"):
    from scipy import stats
    from sklearn import metrics

Item = TypeVar("Item")
Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    Attributes:
        value: The number; None if it can't be computed, and `reason` says why.
        low: Lower end of the 95 % interval, None if there is none.
        high: Upper end.
        n: How many observations the number rests on.
        interval: How the interval was made: `"wilson"`, `"bootstrap over tasks"`, …; `"none"`.
        reason: Why `value` or the interval is None; empty otherwise.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    interval: str = "none"
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """A JSON-serialisable mapping of the attributes."""
        return asdict(self)


def refused(reason: str, n: int = 0) -> Estimate:
    """The estimate of something that can't be computed from this data."""
    return Estimate(value=None, n=n, reason=reason)


def rate(hits: int, total: int, *, of: str) -> Estimate:
    """Share `hits / total` with the Wilson score interval (Wilson, 1927).

    Args:
        hits: How often it happened.
        total: How often it could have.
        of: What `total` counts, for the reason when there is none, e.g. `"failed episodes"`.
    """
    if total == 0:
        return refused(f"there are no {of}")
    return Estimate(hits / total, *wilson_interval(hits, total), total, "wilson")


@dataclass(frozen=True)
class PairedDifference:
    """Two rates over the same cases.

    Attributes:
        difference: Second rate minus first, with Newcombe's interval.
        only_first: Cases in which only the first succeeded.
        only_second: Cases in which only the second did.
        p_value: Of McNemar's exact test that neither is better; None if there are no cases.
    """

    difference: Estimate
    only_first: int
    only_second: int
    p_value: float | None


def paired_difference(outcomes: Sequence[tuple[bool, bool]]) -> PairedDifference:
    """Compares two success rates over the same cases.

    The test is McNemar's (1947) in its exact, binomial form. The interval is method 10 of Newcombe (1998, Statistics in
    Medicine 17:2635): Wilson's intervals of both rates, combined by their correlation.

    Args:
        outcomes: (first, second) of each case.
    """
    pairs = np.array(outcomes, bool).reshape(-1, 2)
    n = len(pairs)
    if n == 0:
        return PairedDifference(refused("there are no pairs"), 0, 0, None)
    first, second = pairs[:, 0], pairs[:, 1]
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    discordant = only_first + only_second
    p_value = float(stats.binomtest(only_second, discordant).pvalue) if discordant else 1.0
    hits_a, hits_b = both + only_second, both + only_first
    (low_a, high_a), (low_b, high_b) = wilson_interval(hits_a, n), wilson_interval(hits_b, n)
    phi = _correlation(both, only_second, only_first, neither)
    down_a, up_a = hits_a / n - low_a, high_a - hits_a / n
    down_b, up_b = hits_b / n - low_b, high_b - hits_b / n
    difference = (hits_a - hits_b) / n
    low = difference - math.sqrt(max(0.0, down_a**2 - 2 * phi * down_a * up_b + up_b**2))
    high = difference + math.sqrt(max(0.0, up_a**2 - 2 * phi * up_a * down_b + down_b**2))
    estimate = Estimate(difference, max(low, -1.0), min(high, 1.0), n, "newcombe")
    return PairedDifference(estimate, only_first, only_second, p_value)


def _correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Phi of a 2 x 2 table, with Newcombe's correction for continuity where it is positive."""
    n = both + only_a + only_b + neither
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    excess = float(both * neither - only_a * only_b)
    if excess > 0:
        excess = max(excess - n / 2, 0.0)
    return excess / math.sqrt(margins)


def cluster_bootstrap(
    items: Sequence[Item],
    cluster: Callable[[Item], Hashable],
    metric: Callable[[Sequence[Item]], float | None],
    *,
    missing: str,
    resamples: int = 300,
    seed: int = 0,
) -> Estimate:
    """A metric with the percentile interval of a bootstrap that draws whole clusters.

    Episodes of one task resemble each other, so tasks are drawn and not episodes. With a single task
    episodes are drawn, and `interval` says so: it then says nothing about other tasks.

    Args:
        items: What the metric is computed over.
        cluster: Item -> its cluster, e.g. the task.
        metric: Items -> number, None where it is not defined.
        missing: Reason to give if the metric is not defined on all items.
        resamples: How many times to draw.
        seed: Seed of the draws.
    """
    value = metric(items)
    if value is None or not math.isfinite(value):
        return refused(missing, len(items))
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(cluster(item), []).append(item)
    units = list(groups.values()) if len(groups) > 1 else [[item] for item in items]
    name = "bootstrap over tasks" if len(groups) > 1 else "bootstrap over episodes of one task"
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        drawn = [item for index in rng.integers(len(units), size=len(units)) for item in units[index]]
        draw = metric(drawn)
        if draw is not None and math.isfinite(draw):
            draws.append(draw)
    if len(units) < 2 or len(draws) < resamples / 2:
        return Estimate(value, n=len(items), reason="too few tasks or episodes for an interval")
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(items), name)


def spearman(first: ArrayLike, second: ArrayLike) -> float | None:
    """Spearman's rank correlation; None with fewer than 2 points or when one side is constant."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(stats.spearmanr(a, b).statistic)


def kendall_tau_a(first: ArrayLike, second: ArrayLike) -> float | None:
    """Kendall's tau-a, (concordant - discordant) / all pairs; ties count as neither. None below 2 points."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    n = a.size
    if n < 2:
        return None
    total = 0.0
    for i in range(n - 1):
        total += float(np.sum(np.sign(a[i + 1 :] - a[i]) * np.sign(b[i + 1 :] - b[i])))
    return total / (n * (n - 1) / 2)


def auroc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Probability that a positive outscores a negative, ties counting half; None if one class is empty."""
    positive = np.asarray(labels, bool)
    if positive.all() or not positive.any():
        return None
    return float(metrics.roc_auc_score(positive, np.asarray(scores, np.float64)))


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Area under precision over recall as a step sum, tied scores entering together.

    None if there is no positive.
    """
    positive = np.asarray(labels, bool)
    if not positive.any():
        return None
    return float(metrics.average_precision_score(positive, np.asarray(scores, np.float64)))


def squared_error(scores: ArrayLike, outcomes: ArrayLike) -> float | None:
    """Mean squared difference of a score in [0, 1] and the outcome, 0 or 1; of probabilities, the Brier score.

    0 is perfect, 0.25 is always saying 0.5. None if there is none.
    """
    array = np.asarray(scores, np.float64)
    return float(np.mean((array - np.asarray(outcomes, bool)) ** 2)) if array.size else None


def two_proportion_p_value(hits: tuple[int, int], totals: tuple[int, int]) -> float | None:
    """Two-sided p-value of the pooled z test (chi-squared without correction) that two rates are equal.

    None if a group is empty or the pooled rate is 0 or 1, where the test says nothing.
    """
    misses = [total - hit for hit, total in zip(hits, totals)]
    if 0 in totals or 0 in (sum(hits), sum(misses)):
        return None
    return float(stats.chi2_contingency([hits, misses], correction=False).pvalue)
