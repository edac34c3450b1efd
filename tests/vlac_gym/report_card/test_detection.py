"""Success detection on numbers worked by hand."""

import numpy as np
import pytest

from vlac_gym.report_card.detection import (
    Confusion,
    calibration_error,
    confusion,
    deployed_precision,
    fpr_at_tpr,
    reported_success_rate,
    threshold_curve,
    tpr_at_fpr,
)


def test_confusion_and_its_rates_by_hand() -> None:
    counts = Confusion(tp=8, fp=1, tn=9, fn=2)
    metrics = counts.metrics()
    assert metrics["tpr"].value == 0.8
    assert metrics["fpr"].value == 0.1
    assert metrics["precision"].value == pytest.approx(8 / 9)
    assert metrics["f1"].value == pytest.approx(16 / 19)
    assert metrics["balanced_accuracy"].value == pytest.approx(0.85)
    assert metrics["youden_j"].value == pytest.approx(0.7)
    # agreed 17/20; by chance (9*10 + 11*10) / 400 = .5 -> (.85 - .5) / .5
    assert metrics["cohen_kappa"].value == pytest.approx(0.7)


def test_a_score_equal_to_the_threshold_counts_in_float32() -> None:
    counts = confusion([np.float32(0.9), 0.9, 0.89], [1, 0, 0], threshold=0.9)
    assert counts == Confusion(tp=1, fp=1, tn=1, fn=0)


def test_an_empty_class_is_refused_and_never_zero() -> None:
    only_failures = Confusion(tp=0, fp=2, tn=8, fn=0).metrics()
    for name in ("tpr", "f1", "balanced_accuracy", "youden_j", "cohen_kappa"):
        assert only_failures[name].value is None, name
        assert only_failures[name].reason == "there are no successes"
    assert only_failures["fpr"].value == 0.2
    only_successes = Confusion(tp=3, fp=0, tn=0, fn=0).metrics()
    assert only_successes["fpr"].value is None
    assert only_successes["youden_j"].reason == "there are no failures"
    assert Confusion(tp=0, fp=0, tn=3, fn=3).metrics()["precision"].value is None


SCORES = [0.9, 0.8, 0.8, 0.3, 0.1]
LABELS = [1, 1, 0, 0, 1]


def test_the_threshold_curve_moves_tied_scores_together() -> None:
    curve = threshold_curve(SCORES, LABELS)
    assert curve is not None
    thresholds, fpr, tpr = curve
    assert thresholds.tolist() == [np.inf, 0.9, 0.8, 0.3, 0.1]
    assert fpr.tolist() == [0, 0, 0.5, 1, 1]
    assert tpr.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1])


def test_operating_points_are_read_off_the_curve() -> None:
    assert fpr_at_tpr(SCORES, LABELS, 0.6) == 0.5
    assert fpr_at_tpr(SCORES, LABELS, 0.9) == 1.0
    assert tpr_at_fpr(SCORES, LABELS, 0.05) == pytest.approx(1 / 3)
    assert tpr_at_fpr(SCORES, LABELS, 0.5) == pytest.approx(2 / 3)
    assert threshold_curve([0.5], [1]) is None
    assert fpr_at_tpr([0.5], [1], 0.9) is None
    assert tpr_at_fpr([0.5], [1], 0.9) is None


def test_calibration_error_by_hand() -> None:
    # bin 9: scores .95 .95, half succeed -> gap .45 on 2; bin 1: score .15, none succeed -> gap .15 on 1;
    # a score of exactly 1 falls into the last bin.
    assert calibration_error([0.95, 0.95, 0.15], [1, 0, 0]) == pytest.approx((0.45 * 2 + 0.15) / 3)
    assert calibration_error([1.0], [1]) == 0.0
    assert calibration_error([], []) is None


def test_deployed_precision_of_a_rarely_successful_policy() -> None:
    # .15 * .8 / (.15 * .8 + .85 * .1) = .12 / .205
    assert deployed_precision(0.8, 0.1, 0.15) == pytest.approx(0.5853659)
    assert deployed_precision(0.0, 0.0, 0.5) is None
    assert reported_success_rate(0.8, 0.1, 0.15) == pytest.approx(0.205)
