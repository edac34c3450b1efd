"""Options of a spec string."""

import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.spec_options import parse_options

TYPES = {"rate": float, "count": int, "name": str}


def test_values_take_the_types_of_the_table():
    assert parse_options(" rate=0.5, count = 3,name=a b,", TYPES, "thing") == {
        "rate": 0.5,
        "count": 3,
        "name": "a b",
    }
    assert parse_options("", TYPES, "thing") == {}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("rate", "Expected thing options as key=value, got 'rate'"),
        ("rate=", "Expected thing options as key=value, got 'rate='"),
        ("speed=1", r"Unknown thing option 'speed'\. Available: count, name, rate"),
        ("count=1,count=2", "thing option 'count' is given twice"),
        ("count=half", "Expected thing option count as int, got 'half'"),
    ],
)
def test_what_does_not_fit_is_refused(argument, message):
    with pytest.raises(ConfigError, match=message):
        parse_options(argument, TYPES, "thing")
