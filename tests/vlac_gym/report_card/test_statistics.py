"""Statistics worked by hand."""

import math

import numpy as np
import pytest

from vlac_gym.report_card.statistics import (
    auroc,
    average_precision,
    cluster_bootstrap,
    kendall_tau_a,
    paired_difference,
    rate,
    spearman,
    squared_error,
    two_proportion_p_value,
)


def test_wilson_interval_of_8_in_10_is_the_textbooks() -> None:
    estimate = rate(8, 10, of="tries")
    assert (estimate.value, estimate.n, estimate.interval) == (0.8, 10, "wilson")
    assert estimate.low == pytest.approx(0.490162, abs=1e-6)
    assert estimate.high == pytest.approx(0.943318, abs=1e-6)


def test_wilson_interval_stays_open_when_nothing_happened() -> None:
    estimate = rate(0, 20, of="tries")
    # z^2 / (n + z^2) with z = 1.96
    assert (estimate.value, estimate.low) == (0.0, 0.0)
    assert estimate.high == pytest.approx(3.841459 / 23.841459, abs=1e-6)
    assert rate(20, 20, of="tries").high == 1.0


def test_a_rate_over_nothing_is_refused() -> None:
    estimate = rate(0, 0, of="failed episodes")
    assert estimate.value is None
    assert estimate.reason == "there are no failed episodes"


def test_spearman_by_hand() -> None:
    # ranks 1 2 3 4 against 1 2 4 3: 1 - 6 * (1 + 1) / (4 * 15) = 0.8
    assert spearman([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(0.8)
    # tied values share their mean rank: 3.5 1 3.5 2 against 1 2 3 4 -> -1 / sqrt(4.5 * 5)
    assert spearman([3, 1, 3, 2], [1, 2, 3, 4]) == pytest.approx(-1 / math.sqrt(22.5))
    assert spearman([1, 2, 3], [5, 5, 5]) is None
    assert spearman([1], [2]) is None
    assert spearman([], []) is None


def test_kendall_tau_a_counts_ties_as_neither() -> None:
    # pairs: (1,0)-(2,0) tie, (1,0)-(3,1) concordant, (2,0)-(3,1) concordant -> 2 / 3
    assert kendall_tau_a([1, 2, 3], [0, 0, 1]) == pytest.approx(2 / 3)
    assert kendall_tau_a([1, 2, 3], [3, 2, 1]) == -1.0
    assert kendall_tau_a([1], [1]) is None


def test_auroc_by_hand() -> None:
    # positives .9 .4, negatives .5 .4 .1: wins 3 + 1, one tie: (4 + 0.5) / 6
    assert auroc([0.9, 0.4, 0.5, 0.4, 0.1], [1, 1, 0, 0, 0]) == pytest.approx(4.5 / 6)
    assert auroc([0.9, 0.4], [1, 1]) is None
    assert auroc([0.9, 0.4], [0, 0]) is None


def test_average_precision_by_hand() -> None:
    # thresholds .9 (P 1, R 1/2), .5 (P 1/2, R 1/2), .4 (two tied: P 2/4, R 1): 1 * .5 + .5 * .5
    assert average_precision([0.9, 0.5, 0.4, 0.4], [1, 0, 1, 0]) == pytest.approx(0.75)
    assert average_precision([0.3], [0]) is None


def test_squared_error_by_hand() -> None:
    assert squared_error([1.0, 0.5, 0.0], [1, 1, 1]) == pytest.approx((0 + 0.25 + 1) / 3)
    assert squared_error([0.9, 0.4], [1, 0]) == pytest.approx((0.01 + 0.16) / 2)
    assert squared_error([], []) is None


def test_two_proportion_test_by_hand() -> None:
    # 8/10 against 4/10: pooled .6, variance .6 * .4 * .2 = .048, z = .4 / .219089 = 1.825742, p = .067889
    assert two_proportion_p_value((8, 4), (10, 10)) == pytest.approx(0.067889, abs=1e-6)
    assert two_proportion_p_value((0, 0), (10, 10)) is None
    assert two_proportion_p_value((1, 0), (10, 0)) is None


def mean_of(items: object) -> float | None:
    values = [value for _, value in items]  # type: ignore[attr-defined]
    return float(np.mean(values)) if values else None


def test_bootstrap_draws_whole_tasks() -> None:
    # Two tasks that are constant inside: a draw of tasks gives 0, 0.5 or 1 and nothing between.
    items = [("a", 0.0)] * 50 + [("b", 1.0)] * 50
    estimate = cluster_bootstrap(items, lambda item: item[0], mean_of, missing="-")
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.0, 1.0)
    assert estimate.interval == "bootstrap over tasks"


def test_bootstrap_of_one_task_draws_episodes_and_says_so() -> None:
    items = [("a", float(i % 2)) for i in range(100)]
    estimate = cluster_bootstrap(items, lambda item: item[0], mean_of, missing="-")
    assert estimate.interval == "bootstrap over episodes of one task"
    # standard error sqrt(.25 / 100) = .05, so about .5 +- .1
    assert estimate.low == pytest.approx(0.4, abs=0.04)
    assert estimate.high == pytest.approx(0.6, abs=0.04)


def test_bootstrap_refuses_an_undefined_metric_and_a_lone_item() -> None:
    refusal = cluster_bootstrap([], lambda item: item, lambda items: None, missing="no failures")
    assert (refusal.value, refusal.reason) == (None, "no failures")
    lone = cluster_bootstrap([("a", 0.5)], lambda item: item[0], mean_of, missing="-")
    assert (lone.value, lone.low) == (0.5, None)
    assert "too few" in lone.reason
    assert math.isfinite(lone.value or 0)


def pairs(both: int, only_second: int, only_first: int, neither: int) -> list[tuple[bool, bool]]:
    return (
        [(True, True)] * both
        + [(False, True)] * only_second
        + [(True, False)] * only_first
        + [(False, False)] * neither
    )


def test_paired_difference_is_newcombes_method_10() -> None:
    # His table of examples: 36, 12, 2, 0 gives 0.0569 to 0.3404.
    found = paired_difference(pairs(36, 12, 2, 0))
    assert found.difference.value == pytest.approx(0.2)
    assert found.difference.low == pytest.approx(0.0569, abs=1e-4)
    assert found.difference.high == pytest.approx(0.3404, abs=1e-4)
    assert (found.only_first, found.only_second, found.difference.n) == (2, 12, 50)
    # Twice the chance of 2 heads or fewer in 14 throws: 2 * (1 + 14 + 91) / 2^14.
    assert found.p_value == pytest.approx(2 * 106 / 16384)


def test_equal_outcomes_leave_no_difference_and_no_doubt() -> None:
    found = paired_difference(pairs(10, 0, 0, 10))
    assert (found.difference.value, found.p_value) == (0.0, 1.0)
    assert found.difference.low is not None
    assert found.difference.high is not None
    assert -0.2 < found.difference.low < 0 < found.difference.high < 0.2
    assert paired_difference([]).difference.reason == "there are no pairs"


def test_the_sign_is_the_seconds() -> None:
    assert paired_difference(pairs(0, 3, 1, 0)).difference.value == pytest.approx(0.5)
    assert paired_difference(pairs(0, 1, 3, 0)).difference.value == pytest.approx(-0.5)
