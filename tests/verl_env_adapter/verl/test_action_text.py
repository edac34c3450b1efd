"""Actions as integers in text, and what becomes of text that is none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_env_adapter.verl.action_text import IntegerActionText, make_action_tokenizer
from vlac_gym.errors import ConfigError


def two_by_two() -> IntegerActionText:
    """Two actions of (motion in [-1, 1], gripper in [-1, 1])."""
    return IntegerActionText(chunk=2, low=[-1.0, -1.0], high=[1.0, 1.0])


def test_integers_become_values_between_the_bounds():
    text = IntegerActionText(chunk=2, low=[-1.0, 0.0], high=[1.0, 2.0])
    decoded = text.decode("0 250 1000 1000")
    assert decoded.actions.tolist() == [[-1.0, 0.5], [1.0, 2.0]]
    assert decoded.actions.dtype == np.float32
    assert not decoded.is_malformed


def test_encoding_is_the_nearest_integer_and_decodes_again():
    text = two_by_two()
    actions = np.array([[-1.0, 1.0], [0.0004, 0.25]])
    assert text.encode(actions) == "0 1000 500 625"
    assert text.decode(text.encode(actions)).actions.tolist() == [[-1.0, 1.0], [0.0, 0.25]]
    assert text.encode(np.array([[-9.0, 9.0]])) == "0 1000"
    with pytest.raises(ConfigError, match=r"\(T, 2\), got \(2,\)"):
        text.encode(np.zeros(2))


@pytest.mark.parametrize(
    ("reply", "actions"),
    [
        ("1000 0 500", [[1.0, -1.0]]),
        ("1000 0 500 500 7 7 7 7", [[1.0, -1.0], [0.0, 0.0]]),
        ("5000 0 500 500", [[1.0, -1.0], [0.0, 0.0]]),
        ("-3 0 500 500", [[-1.0, -1.0], [0.0, 0.0]]),
        ("move: 1000, then 0", [[1.0, -1.0]]),
        ("", [[0.0, -1.0]]),
        ("no numbers", [[0.0, -1.0]]),
    ],
)
def test_text_that_breaks_the_format_is_mended(reply, actions):
    decoded = two_by_two().decode(reply)
    assert decoded.actions.tolist() == actions
    assert decoded.is_malformed is (reply != "5000 0 500 500")


def test_resting_keeps_the_gripper_as_it_was():
    text = two_by_two()
    text.decode("0 0 0 1000")
    assert text.decode("?").actions.tolist() == [[0.0, 1.0]]


@given(st.text(max_size=200))
def test_no_text_whatsoever_fails(reply):
    actions = two_by_two().decode(reply).actions
    assert actions.ndim == 2
    assert 1 <= len(actions) <= 2
    assert ((actions >= -1.0) & (actions <= 1.0)).all()


def test_instructions_name_the_numbers():
    assert "sequence of 4 integers from 0 to 1000" in two_by_two().instructions()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": 0, "low": [0.0], "high": [1.0]}, "chunk as an int >= 1"),
        ({"chunk": 1, "low": [0.0], "high": [1.0], "bins": 0}, "bins as an int >= 1"),
        ({"chunk": 1, "low": [0.0], "high": [1.0, 2.0]}, "vectors of one length"),
        ({"chunk": 1, "low": [1.0], "high": [1.0]}, "low < high"),
        ({"chunk": 1, "low": [float("nan")], "high": [1.0]}, "finite vectors"),
        ({"chunk": 1, "low": [], "high": []}, "finite vectors"),
        ({"chunk": 1}, "do not fit action_tokenizer 'integers'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make_action_tokenizer("integers", options)


def test_own_tokenizers_are_named_by_module_and_class():
    made = make_action_tokenizer(
        "verl_env_adapter.verl.action_text:IntegerActionText", {"chunk": 1, "low": [0.0], "high": [1.0]}
    )
    assert made.decode("500").actions.tolist() == [[0.5]]
    for name, message in [
        ("integer", "'integers' or 'module:Class'"),
        ("nothing:Here", "Can't load"),
        ("builtins:dict", "no ActionTokenizer"),
    ]:
        with pytest.raises(ConfigError, match=message):
            make_action_tokenizer(name, {})
