"""Statistics that every part of the report card shares, on plain arrays.

`Estimate` (a number with its interval, or the reason why there is none), `rate` (Wilson interval), `refused`,
`cluster_bootstrap`, `spearman`, `kendall_tau_a`, `auroc`, `average_precision`, `two_proportion_p_value`.
A quantity that is not defined is None or a refused `Estimate`; it is never 0. The textbook's formulas are scipy's and
scikit-learn's; tau-a and a bootstrap that draws whole clusters are in neither.
"""

__all__ = [
    "Estimate",
    "auroc",
    "average_precision",
    "cluster_bootstrap",
    "kendall_tau_a",
    "rate",
    "refused",
    "spearman",
    "two_proportion_p_value",
]

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlac_gym.extras import needs

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
    interval = stats.binomtest(hits, total).proportion_ci(confidence_level=0.95, method="wilson")
    return Estimate(hits / total, float(interval.low), float(interval.high), total, "wilson")


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


def two_proportion_p_value(hits: tuple[int, int], totals: tuple[int, int]) -> float | None:
    """Two-sided p-value of the pooled z test (chi-squared without correction) that two rates are equal.

    None if a group is empty or the pooled rate is 0 or 1, where the test says nothing.
    """
    misses = [total - hit for hit, total in zip(hits, totals)]
    if 0 in totals or 0 in (sum(hits), sum(misses)):
        return None
    return float(stats.chi2_contingency([hits, misses], correction=False).pvalue)
