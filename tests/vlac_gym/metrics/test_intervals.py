"""Intervals of shares, by hand and against scipy."""

import pytest
from scipy import stats

from vlac_gym.metrics.intervals import wilson_interval


def test_wilsons_interval_of_50_in_100_and_of_none_in_10():
    # (0.5 + 3.8415 / 200 ± 1.96 * sqrt(0.25 / 100 + 3.8415 / 40000)) / (1 + 0.038415)
    assert wilson_interval(50, 100) == pytest.approx((0.40383, 0.59617), abs=1e-5)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_it_is_scipys():
    for hits, total in ((0, 1), (1, 1), (3, 7), (99, 100), (0, 1000), (1000, 1000)):
        theirs = stats.binomtest(hits, total).proportion_ci(0.95, method="wilson")
        assert wilson_interval(hits, total) == pytest.approx((theirs.low, theirs.high), rel=1e-12, abs=1e-15)
