"""Options of a spec string."""

from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.specs.options import (
    option_types,
    parameter_hints,
    parse_options,
    read_argument,
    read_members,
    split_spec,
)

TYPES = {"rate": float, "count": int, "name": str}


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("oracle", ("oracle", "")),
        (" nano?reading=plain ", ("nano", "?reading=plain")),
        ("nano:?reading=plain", ("nano", "?reading=plain")),
        ("noisy_oracle:tpr=0.8", ("noisy_oracle", "tpr=0.8")),
        ("openai:http://h:1/v1#m?timeout_s=1", ("openai", "http://h:1/v1#m?timeout_s=1")),
        ("http://h:8400?timeout_s=1", ("http", "//h:8400?timeout_s=1")),
        (":x", ("", "x")),
    ],
)
def test_a_spec_is_a_name_and_what_follows(spec, parts):
    assert split_spec(spec) == parts


def test_a_target_ends_at_the_question_mark_unless_it_exists_as_a_whole(tmp_path):
    assert read_argument("PATH?count=2", TYPES, "x:PATH") == ("PATH", {"count": 2})
    odd = tmp_path / "a?count=2"
    odd.touch()
    assert read_argument(str(odd), TYPES, "x:PATH") == (str(odd), {})


def test_without_a_target_options_follow_with_or_without_a_question_mark():
    for argument in ("count=2", "?count=2"):
        assert read_argument(argument, TYPES, "x", has_target=False) == ("", {"count": 2})


def test_options_of_the_spec_and_keywords_are_joined_and_never_override():
    assert read_argument("P?count=2", TYPES, "x:P", given={"rate": 0.5}) == ("P", {"count": 2, "rate": 0.5})
    with pytest.raises(ConfigError, match="Option 'count' is given in the spec and as a keyword"):
        read_argument("P?count=2", TYPES, "x:P", given={"count": 3})
    with pytest.raises(ConfigError, match="Expected a spec x:P, got nothing after the colon"):
        read_argument(" ?count=2", TYPES, "x:P")


def test_several_specs_stand_with_bars_between_and_the_options_of_the_whole_behind_the_last():
    assert read_members("nano | http://a,http://b?c=1,d=2", TYPES, "x:S|S") == (
        ["nano", "http://a,http://b?c=1,d=2"],
        {},
    )
    assert read_members("a?name=q|b|?count=2", TYPES, "x:S|S", given={"rate": 0.5}) == (
        ["a?name=q", "b"],
        {"count": 2, "rate": 0.5},
    )
    with pytest.raises(ConfigError, match=r"Expected a spec x:S\|S, got an empty one among \['a', ''\]"):
        read_members("a|", TYPES, "x:S|S")
    with pytest.raises(ConfigError, match="Option 'count' is given in the spec and as a keyword"):
        read_members("a|b|?count=2", TYPES, "x:S|S", given={"count": 3})


@dataclass
class _Thing:
    rate: float = 0.5
    count: int | None = None
    is_on: bool = False
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    secret: str = ""


def test_option_types_come_from_the_annotations():
    assert option_types(_Thing, without=["secret"]) == {
        "rate": float,
        "count": int,
        "is_on": bool,
        "kind": str,
    }
    assert parse_options("is_on=True", {"is_on": bool}, "thing") == {"is_on": True}
    with pytest.raises(ConfigError, match="option is_on as true or false, got 'yes'"):
        parse_options("is_on=yes", {"is_on": bool}, "thing")


class _Keywords(TypedDict, total=False):
    rate: float
    secret: str
    rows: list[int]


def test_keywords_of_a_typed_dict_are_options_too():
    def make(path: str, **options: Unpack[_Keywords]) -> None: ...

    assert option_types(make, without=["secret"]) == {"path": str, "rate": float}
    assert list(parameter_hints(make)) == ["path", "rate", "secret", "rows"]


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
        ("count=1&flag=true", "got .1.flag=true.. A comma parts options, not &"),
    ],
)
def test_what_does_not_fit_is_refused(argument, message):
    with pytest.raises(ConfigError, match=message):
        parse_options(argument, TYPES, "thing")
