"""Success detection: how well a score in [0, 1] tells success from failure. Pure functions on arrays.

`confusion`, `Confusion`, `threshold_curve`, `fpr_at_tpr`, `tpr_at_fpr`, `brier_score`, `calibration_error`,
`deployed_precision`, `reported_success_rate`. A score counts as success if `score >= threshold` in float32,
which is how the reward wrapper compares.
"""

__all__ = [
    "Confusion",
    "brier_score",
    "calibration_error",
    "confusion",
    "deployed_precision",
    "fpr_at_tpr",
    "reported_success_rate",
    "reliability_bins",
    "threshold_curve",
    "tpr_at_fpr",
]

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlac_gym.report_card.statistics import Array, Estimate, rate, refused


@dataclass(frozen=True)
class Confusion:
    """Counts of a binary verdict against the simulator.

    Attributes:
        tp: Said success, was success.
        fp: Said success, was not.
        tn: Said no, was not.
        fn: Said no, was success.
    """

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def positives(self) -> int:
        """How many were successes."""
        return self.tp + self.fn

    @property
    def negatives(self) -> int:
        """How many were not."""
        return self.fp + self.tn

    def metrics(self) -> dict[str, Estimate]:
        """Rates with Wilson intervals, and F1, balanced accuracy, Youden's J and Cohen's kappa.

        What needs both classes is refused when one is empty.
        """
        both = self._needs_both_classes
        n = self.positives + self.negatives
        tpr = self.tp / self.positives if self.positives else 0.0
        tnr = self.tn / self.negatives if self.negatives else 0.0
        f1_below = 2 * self.tp + self.fp + self.fn
        return {
            "tpr": rate(self.tp, self.positives, of="successes"),
            "fpr": rate(self.fp, self.negatives, of="failures"),
            "precision": rate(self.tp, self.tp + self.fp, of="verdicts of success"),
            "f1": Estimate(2 * self.tp / f1_below, n=n)
            if self.positives
            else refused("there are no successes"),
            "balanced_accuracy": both or Estimate((tpr + tnr) / 2, n=n),
            "youden_j": both or Estimate(tpr + tnr - 1, n=n),
            "cohen_kappa": both or Estimate(self._kappa(), n=n),
        }

    @property
    def _needs_both_classes(self) -> Estimate | None:
        if self.positives == 0:
            return refused("there are no successes", self.negatives)
        return refused("there are no failures", self.positives) if self.negatives == 0 else None

    def _kappa(self) -> float:
        n = self.positives + self.negatives
        agreed = (self.tp + self.tn) / n
        said = self.tp + self.fp
        by_chance = (said * self.positives + (n - said) * self.negatives) / n**2
        return (agreed - by_chance) / (1 - by_chance)


def confusion(scores: ArrayLike, labels: ArrayLike, threshold: float) -> Confusion:
    """Counts verdicts `score >= threshold` against labels."""
    said = np.asarray(scores, np.float32) >= np.float32(threshold)
    was = np.asarray(labels, bool)
    return Confusion(
        tp=int((said & was).sum()), fp=int((said & ~was).sum()),
        tn=int((~said & ~was).sum()), fn=int((~said & was).sum()),
    )  # fmt: skip


def threshold_curve(scores: ArrayLike, labels: ArrayLike) -> tuple[Array, Array, Array]:
    """Every distinct operating point: thresholds from high to low, with FPR and TPR at each.

    The first threshold is infinite (nothing counts as success: FPR 0, TPR 0).

    Returns:
        Three arrays (K + 1,) for K distinct scores; NaN rates where a class is empty.
    """
    array, positive = np.asarray(scores, np.float64), np.asarray(labels, bool)
    order = np.argsort(-array, kind="stable")
    array, positive = array[order], positive[order]
    last_of_tie = np.append(np.diff(array) != 0, True) if array.size else np.zeros(0, bool)
    with np.errstate(invalid="ignore"):
        tpr = np.cumsum(positive)[last_of_tie] / np.float64(positive.sum())
        fpr = np.cumsum(~positive)[last_of_tie] / np.float64((~positive).sum())
    thresholds = np.concatenate([[np.inf], array[last_of_tie]])
    return thresholds, np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr])


def fpr_at_tpr(scores: ArrayLike, labels: ArrayLike, tpr: float) -> float | None:
    """Smallest false-positive rate of a threshold that keeps at least this TPR; None if a class is empty."""
    if _one_class_is_empty(labels):
        return None
    _, fprs, tprs = threshold_curve(scores, labels)
    return float(fprs[tprs >= tpr].min())


def tpr_at_fpr(scores: ArrayLike, labels: ArrayLike, fpr: float) -> float | None:
    """Largest TPR of a threshold whose false-positive rate is at most this; None if a class is empty."""
    if _one_class_is_empty(labels):
        return None
    _, fprs, tprs = threshold_curve(scores, labels)
    return float(tprs[fprs <= fpr].max())


def brier_score(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Mean squared difference of score and outcome: 0 is perfect, 0.25 is always saying 0.5. None if empty."""
    array = np.asarray(scores, np.float64)
    return float(np.mean((array - np.asarray(labels, bool)) ** 2)) if array.size else None


def reliability_bins(
    scores: ArrayLike, labels: ArrayLike, bins: int = 10
) -> tuple[NDArray[np.int64], Array, Array]:
    """Count, mean score and success rate of each of `bins` equal score ranges (NaN where a bin is empty)."""
    array, outcome = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    index = np.minimum((array * bins).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_score = np.bincount(index, array, bins) / count
        success_rate = np.bincount(index, outcome, bins) / count
    return count, mean_score, success_rate


def calibration_error(scores: ArrayLike, labels: ArrayLike, bins: int = 10) -> float | None:
    """Expected calibration error: mean over bins of |mean score - success rate|, weighted by count."""
    count, mean_score, success_rate = reliability_bins(scores, labels, bins)
    filled = count > 0
    if not filled.any():
        return None
    gaps = np.abs(mean_score[filled] - success_rate[filled])
    return float(np.sum(gaps * count[filled]) / count.sum())


def deployed_precision(tpr: float, fpr: float, success_rate: float) -> float | None:
    """Share of true successes among verdicts of success when the policy succeeds at `success_rate`.

    `pi * TPR / (pi * TPR + (1 - pi) * FPR)`; None if the critic never says success.
    """
    said = success_rate * tpr + (1 - success_rate) * fpr
    return success_rate * tpr / said if said > 0 else None


def reported_success_rate(tpr: float, fpr: float, success_rate: float) -> float:
    """Success rate that the critic reports for a policy that succeeds at `success_rate`: p TPR + (1 - p) FPR."""
    return success_rate * tpr + (1 - success_rate) * fpr


def _one_class_is_empty(labels: ArrayLike) -> bool:
    positive = np.asarray(labels, bool)
    return bool(positive.all() or not positive.any())
