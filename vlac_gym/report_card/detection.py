"""Success detection: how well a score in [0, 1] tells success from failure. Pure functions on arrays.

`confusion`, `Confusion`, `threshold_curve`, `fpr_at_tpr`, `tpr_at_fpr`, `calibration_error`,
`deployed_precision`, `reported_success_rate`. A score counts as success if `score >= threshold` in float32,
which is how the reward wrapper compares.
"""

__all__ = [
    "Confusion",
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

from vlac_gym.extras import needs
from vlac_gym.report_card.statistics import Array, Estimate, rate, refused

with needs("A report card", "report"):
    from sklearn import metrics


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

    def scores(self) -> dict[str, float | None]:
        """Rates, F1, balanced accuracy, Youden's J and Cohen's kappa; None where a class that they need is empty."""
        tpr, fpr = _share(self.tp, self.positives), _share(self.fp, self.negatives)
        tnr = _share(self.tn, self.negatives)
        both = None if tpr is None or tnr is None else tpr + tnr
        return {
            "tpr": tpr,
            "fpr": fpr,
            "precision": _share(self.tp, self.tp + self.fp),
            "f1": 2 * self.tp / (2 * self.tp + self.fp + self.fn) if self.positives else None,
            "balanced_accuracy": None if both is None else both / 2,
            "youden_j": None if both is None else both - 1,
            "cohen_kappa": None if both is None else self._kappa(),
        }

    def metrics(self) -> dict[str, Estimate]:
        """`scores` as estimates: the rates with Wilson intervals, the rest with the reason where there is none."""
        n = self.positives + self.negatives
        missing = "there are no failures" if self.positives else "there are no successes"
        return {
            **{
                name: refused(missing, n) if score is None else Estimate(score, n=n)
                for name, score in self.scores().items()
            },
            "tpr": rate(self.tp, self.positives, of="successes"),
            "fpr": rate(self.fp, self.negatives, of="failures"),
            "precision": rate(self.tp, self.tp + self.fp, of="verdicts of success"),
        }

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


def threshold_curve(scores: ArrayLike, labels: ArrayLike) -> tuple[Array, Array, Array] | None:
    """Every distinct operating point: thresholds from high to low, with FPR and TPR at each.

    The first threshold is infinite (nothing counts as success: FPR 0, TPR 0).

    Returns:
        Three arrays (K + 1,) for K distinct scores; None if a class is empty.
    """
    array, positive = np.asarray(scores, np.float64), np.asarray(labels, bool)
    if positive.all() or not positive.any():
        return None
    fpr, tpr, thresholds = metrics.roc_curve(positive, array, drop_intermediate=False)
    return thresholds, fpr, tpr


def fpr_at_tpr(scores: ArrayLike, labels: ArrayLike, tpr: float) -> float | None:
    """Smallest false-positive rate of a threshold that keeps at least this TPR; None if a class is empty."""
    curve = threshold_curve(scores, labels)
    return None if curve is None else float(curve[1][curve[2] >= tpr].min())


def tpr_at_fpr(scores: ArrayLike, labels: ArrayLike, fpr: float) -> float | None:
    """Largest TPR of a threshold whose false-positive rate is at most this; None if a class is empty."""
    curve = threshold_curve(scores, labels)
    return None if curve is None else float(curve[2][curve[1] <= fpr].max())


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


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
