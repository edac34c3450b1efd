"""Lists of ids as text."""

import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.specs.ids import parse_ids


@pytest.mark.parametrize(
    ("text", "count", "ids"),
    [
        ("all", 4, [0, 1, 2, 3]),
        ("0-2", 4, [0, 1, 2]),
        ("3,1", 4, [1, 3]),
        ("0,2-3", 4, [0, 2, 3]),
        ("7,98-99,7", None, [7, 98, 99]),
    ],
)
def test_ids_are_given_as_ranges_and_lists(text, count, ids):
    assert parse_ids(text, count, "task ids") == ids


@pytest.mark.parametrize(
    ("text", "count", "message"),
    [
        ("4", 4, "in rising order and below 4, got '4'"),
        ("a", 4, "Expected task ids as 'all', '0-4' or"),
        ("1-", 4, "Expected task ids as"),
        ("5-3", None, "Expected task ids in rising order, got '5-3'"),
        ("all", None, "Expected task ids as '0-4' or '0,3,5-7', got 'all'"),
        ("", None, "Expected task ids as"),
    ],
)
def test_ids_that_do_not_exist_are_refused(text, count, message):
    with pytest.raises(ConfigError, match=message):
        parse_ids(text, count, "task ids")
