"""Arithmetic on pairwise progress: `accumulate_values`, `value_order_correlation`, `negative_rate`. numpy only.

Sources: VLAC (arXiv 2509.15937) and its reference code (InternRobotics/VLAC, commit 71acb22,
`critic_to_value_simple`, `compute_voc`, `compute_negative_rate`); the value-order correlation is GVL's
(arXiv 2411.04549).
"""

__all__ = ["VALUE_RULES", "ValueRule", "accumulate_values", "negative_rate", "value_order_correlation"]

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError, unknown_name

ValueRule = Literal["simple", "hyperbolic", "mixed"]
"""How regress lowers the value; see `accumulate_values`. The reference calls them True, False and 'mix_f'."""

_MIN_REMAINING = 0.01
"""Least distance to the goal that regress is scaled by, from the reference: `max(100 - v, 1.0)`."""

_MIN_RETAINED = 0.001
"""Ours: stands for `1 + c` from 0 up to here. The reference divides by zero at c = -1; this is its finest step."""

_MIXED_FLOOR = 0.1
"""Value below which a single regress from above one half can't fall under `mixed`, from the reference."""


def accumulate_values(
    progress: Sequence[float] | NDArray[np.floating], rule: ValueRule = "simple", *, bounded: bool = False
) -> NDArray[np.float64]:
    """Adds pairwise progress up to a value per frame, starting at 0.

    Progress c > 0 closes that share of the remaining distance under every rule: `v += (1 - v) * c`.
    For c <= 0:

    - `simple`: the same formula (the paper's recurrence).
    - `hyperbolic`: `v = 1 - max(1 - v, 0.01) / (1 + c)`, the inverse of progress of the same size.
    - `mixed`: from v > 0.5 the hyperbolic formula, but not below 0.1; else `v += v * c`.

    Args:
        progress: T - 1 numbers in units of 1, in order, + is closer to the goal. Beyond [-1, 1], where a
            weighted reading can stray, the formulas go on as the reference's do; critics clip before.
        rule: See above.
        bounded: Keep every value in [0, 1]. Unbounded, `simple` and `hyperbolic` can fall far below 0, as the
            reference's do.

    Returns:
        float64 (T,), the first 0.

    Raises:
        ConfigError: Unknown rule, or progress is not one-dimensional and finite.
    """
    if rule not in VALUE_RULES:
        raise unknown_name("value rule", str(rule), VALUE_RULES)
    advance = VALUE_RULES[rule]
    values = [0.0]
    for change in _finite(progress, "progress").tolist():
        value = values[-1]
        value = value + (1.0 - value) * change if change > 0.0 else advance(value, change)
        values.append(min(max(value, 0.0), 1.0) if bounded else value)
    return np.array(values)


def value_order_correlation(values: Sequence[float] | NDArray[np.floating]) -> float | None:
    """Value-order correlation (VOC): Spearman's rank correlation of values with time, ties averaged.

    Args:
        values: T numbers in time order.

    Returns:
        [-1, 1]; 1 if the values always rise. None where it is undefined: fewer than two values, or all
        equal (the reference returns NaN there).

    Raises:
        ConfigError: `values` is not one-dimensional and finite.
    """
    series = _finite(values, "values")
    if series.size < 2 or np.all(series == series[0]):
        return None
    ranks = _average_ranks(series)
    times = np.arange(series.size, dtype=np.float64)
    ranks, times = ranks - ranks.mean(), times - times.mean()
    return float(ranks @ times / np.sqrt((ranks @ ranks) * (times @ times)))


def negative_rate(progress: Sequence[float] | NDArray[np.floating]) -> float | None:
    """Share of pairs that the critic judges as regress, [0, 1]; None without pairs.

    Raises:
        ConfigError: `progress` is not one-dimensional and finite.
    """
    series = _finite(progress, "progress")
    return float(np.mean(series < 0.0)) if series.size else None


def _simple(value: float, change: float) -> float:
    return value + (1.0 - value) * change


def _hyperbolic(value: float, change: float) -> float:
    retained = 1.0 + change
    if 0.0 <= retained < _MIN_RETAINED:
        retained = _MIN_RETAINED
    return 1.0 - max(1.0 - value, _MIN_REMAINING) / retained


def _mixed(value: float, change: float) -> float:
    return max(_MIXED_FLOOR, _hyperbolic(value, change)) if value > 0.5 else value + value * change


VALUE_RULES: dict[str, Callable[[float, float], float]] = {
    "simple": _simple,
    "hyperbolic": _hyperbolic,
    "mixed": _mixed,
}
"""Rule -> next value from (value, c) for c <= 0."""


def _finite(numbers: Sequence[float] | NDArray[np.floating], where: str) -> NDArray[np.float64]:
    series = np.asarray(numbers, dtype=np.float64)
    if series.ndim != 1 or not np.isfinite(series).all():
        raise ConfigError(f"Expected {where} as a one-dimensional list of finite numbers, got {numbers!r}.")
    return series


def _average_ranks(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, equal numbers sharing the mean of their ranks."""
    _, inverse, counts = np.unique(series, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2.0)[inverse]
    return ranks
