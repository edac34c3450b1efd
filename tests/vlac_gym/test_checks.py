"""Checks of single values: what they let through, and what they say of the rest."""

import numpy as np
import pytest

from vlac_gym.checks import check_choice, check_int, check_unit, is_number
from vlac_gym.errors import ConfigError


def test_a_choice_is_one_of_those_named_and_the_nearest_is_proposed():
    check_choice("mode", "eval", ("train", "eval"))
    with pytest.raises(ConfigError, match=r"Unknown mode 'evil'.*Did you mean 'eval'"):
        check_choice("mode", "evil", ("train", "eval"))
    with pytest.raises(ConfigError, match="Unknown mode 'None'"):
        check_choice("mode", None, ("train", "eval"))


@pytest.mark.parametrize("value", [2, 3])
def test_an_int_may_be_the_least_one(value):
    check_int("count", value, minimum=2)


@pytest.mark.parametrize("value", [1, 2.0, True, "2", None, np.int64(2)])
def test_what_is_no_int_or_too_small_is_refused(value):
    with pytest.raises(ConfigError, match="Expected count as an int >= 2, got "):
        check_int("count", value, minimum=2)


@pytest.mark.parametrize("value", [0, 1, 0.0, 0.5, 1.0, np.float32(0.5), np.float64(1)])
def test_a_share_may_be_nothing_or_all(value):
    check_unit("share", value)


@pytest.mark.parametrize(
    "value", [-0.1, 1.1, float("nan"), True, "0.5", None, np.float32(1.5), np.bool_(True), 10**400]
)
def test_what_is_no_share_is_refused(value):
    with pytest.raises(ConfigError, match=r"Expected share in \[0, 1\], got "):
        check_unit("share", value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, True),
        (-1.5, True),
        (True, False),
        ("1", False),
        (float("inf"), False),
        (float("nan"), False),
        (10**400, False),
    ],
)
def test_a_number_is_finite_and_no_bool(value, expected):
    assert is_number(value) is expected
