"""Value rules, value-order correlation and negative rate, worked out by hand."""

import math

import numpy as np
import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.metrics.progress import accumulate_values, negative_rate, value_order_correlation


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        ("simple", [0.0, 0.5, 0.75, 0.625]),  # 0.75 + 0.25 * -0.5
        ("hyperbolic", [0.0, 0.5, 0.75, 0.5]),  # 1 - 0.25 / 0.5: undoes the second +0.5
        ("mixed", [0.0, 0.5, 0.75, 0.5]),
    ],
)
def test_rules_differ_in_regress_only(rule, values):
    assert accumulate_values([0.5, 0.5, -0.5], rule).tolist() == values


def test_mixed_takes_its_share_of_a_low_value():
    assert accumulate_values([0.5, -0.5], "mixed").tolist() == [0.0, 0.5, 0.25]


def test_mixed_never_falls_below_a_tenth_from_above_one_half():
    assert accumulate_values([0.75, -0.9], "mixed").tolist() == [0.0, 0.75, 0.1]  # 1 - 0.25 / 0.1 = -1.5


def test_simple_rule_can_fall_below_zero_unless_bounded():
    assert accumulate_values([-0.5, 0.5]).tolist() == [0.0, -0.5, 0.25]
    assert accumulate_values([-0.5, 0.5], bounded=True).tolist() == [0.0, 0.0, 0.5]


def test_no_progress_changes_nothing_but_hyperbolic_near_the_goal():
    assert accumulate_values([1.0, 0.0], "simple").tolist() == [0.0, 1.0, 1.0]
    assert accumulate_values([1.0, 0.0], "hyperbolic").tolist() == [0.0, 1.0, 0.99]  # max(1 - v, 0.01)


@pytest.mark.parametrize(("rule", "value"), [("hyperbolic", -999.0), ("mixed", 0.0)])
def test_total_regress_is_finite(rule, value):
    assert accumulate_values([-1.0], rule)[-1] == pytest.approx(value, abs=1e-9)  # 1 - 1 / 0.001


def test_no_pairs_give_the_first_value():
    values = accumulate_values([])
    assert values.tolist() == [0.0]
    assert values.dtype == np.float64


def test_input_is_not_modified():
    progress = np.array([0.5, -0.5])
    accumulate_values(progress, bounded=True)
    assert progress.tolist() == [0.5, -0.5]


def test_unknown_rule_lists_the_known():
    with pytest.raises(
        ConfigError, match=r"Unknown value rule 'mix_f'. Available: hyperbolic, mixed, simple"
    ):
        accumulate_values([0.1], "mix_f")


@pytest.mark.parametrize("numbers", [[math.nan], [math.inf], [[0.1, 0.2]]])
@pytest.mark.parametrize("function", [accumulate_values, negative_rate, value_order_correlation])
def test_what_is_not_a_list_of_finite_numbers_is_refused(function, numbers):
    with pytest.raises(ConfigError, match="one-dimensional list of finite numbers"):
        function(numbers)


@pytest.mark.parametrize(
    ("values", "correlation"),
    [
        ([0.0, 0.1, 0.2, 0.9], 1.0),
        ([0.9, 0.2, 0.1], -1.0),
        ([0.0, 0.2, 0.1], 0.5),  # 1 - 6 * (0 + 1 + 1) / (3 * 8)
        ([0.0, 0.0, 1.0], math.sqrt(3) / 2),  # ranks 0.5 0.5 2 against 0 1 2: 1.5 / sqrt(1.5 * 2)
        ([0.0, 1.0, 0.0, 1.0], 1 / math.sqrt(5)),  # ranks .5 2.5 .5 2.5: 2 / sqrt(4 * 5)
    ],
)
def test_value_order_correlation(values, correlation):
    assert value_order_correlation(values) == pytest.approx(correlation, abs=1e-12)


@pytest.mark.parametrize("values", [[], [0.3], [0.3, 0.3, 0.3]])
def test_value_order_correlation_is_undefined_without_order(values):
    assert value_order_correlation(values) is None


def test_negative_rate_counts_regress_only():
    assert negative_rate([0.1, -0.1, 0.0, -0.0]) == 0.25
    assert negative_rate([]) is None
