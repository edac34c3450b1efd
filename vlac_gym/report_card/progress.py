"""Progress and value: does the critic's curve rise with work done and fall with work lost? Pure functions.

`f1_of_correlations`, `sign_accuracy`, `regression_recall`, `antisymmetry_error`, `path_error`,
`pairwise_outcome_accuracy`; values, VOC and NR are those of `vlac_gym.metrics.progress`.

Names follow VLAC (arXiv 2509.15937): VOC is Spearman's correlation of value and time, VROC the same on the
reversed video, VOC-F1 their harmonic mean, NR the share of pairs with negative progress.
"""

__all__ = [
    "antisymmetry_error",
    "f1_of_correlations",
    "pairwise_outcome_accuracy",
    "path_error",
    "regression_recall",
    "sign_accuracy",
]

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def f1_of_correlations(voc: float, vroc: float) -> float | None:
    """VOC-F1, the harmonic mean of VOC and VROC; None unless their sum is positive."""
    return 2 * voc * vroc / (voc + vroc) if voc + vroc > 0 else None


def sign_accuracy(progress: ArrayLike, truth_change: ArrayLike, dead_band: float = 0.01) -> float | None:
    """Share of pairs whose progress has the sign of the true change; None without a pair that changes.

    Args:
        progress: float (P,), the critic's answers.
        truth_change: float (P,), change of the dense truth; pairs within `dead_band` of 0 do not count.
        dead_band: Smallest change that counts.
    """
    answers, change = np.asarray(progress, np.float64), np.asarray(truth_change, np.float64)
    moved = np.abs(change) > dead_band
    return float(np.mean(np.sign(answers[moved]) == np.sign(change[moved]))) if moved.any() else None


def regression_recall(progress: ArrayLike, truth_change: ArrayLike, dead_band: float = 0.01) -> float | None:
    """Share of true losses that the critic answers with negative progress; None if nothing is ever lost."""
    lost = np.asarray(truth_change, np.float64) < -dead_band
    return float(np.mean(np.asarray(progress, np.float64)[lost] < 0)) if lost.any() else None


def antisymmetry_error(forward: ArrayLike, backward: ArrayLike) -> float | None:
    """Mean |c(a, b) + c(b, a)| over pairs; 0 is consistent. None without pairs."""
    total = np.asarray(forward, np.float64) + np.asarray(backward, np.float64)
    return float(np.mean(np.abs(total))) if total.size else None


def path_error(first: ArrayLike, second: ArrayLike, direct: ArrayLike) -> float | None:
    """Mean |v(a -> b -> c) - v(a -> c)| over triples, with v accumulated from 0. None without triples."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    through = 1.0 - (1.0 - a) * (1.0 - b)
    return float(np.mean(np.abs(through - np.asarray(direct, np.float64)))) if a.size else None


def pairwise_outcome_accuracy(
    final_values: ArrayLike, outcomes: ArrayLike, groups: Sequence[Hashable]
) -> float | None:
    """Chance that a success ends with a higher value than a failure of the same task, ties counting half.

    None if no task has both outcomes.
    """
    values, success = np.asarray(final_values, np.float64), np.asarray(outcomes, bool)
    labels = np.array([hash(group) for group in groups])
    won: list[NDArray[np.float64]] = []
    for label in np.unique(labels):
        good, bad = values[(labels == label) & success], values[(labels == label) & ~success]
        won.append(((np.sign(good[:, None] - bad[None, :]) + 1) / 2).ravel())
    all_pairs = np.concatenate(won) if won else np.zeros(0)
    return float(all_pairs.mean()) if all_pairs.size else None
