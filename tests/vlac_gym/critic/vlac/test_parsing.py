"""Reading of replies, with numbers worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlac_gym.critic.engines.base import EngineReply, EngineToken, TokenCandidate
from vlac_gym.critic.engines.scripted import scripted_reply
from vlac_gym.critic.vlac.parsing import read_done, read_number, read_progress
from vlac_gym.errors import CriticResponseError


def reply_of(*positions: dict[str, float]) -> EngineReply:
    """A reply that says the first candidate of each position."""
    tokens = tuple(
        EngineToken(
            next(iter(position)),
            math.log(next(iter(position.values()))),
            tuple(TokenCandidate(token, math.log(p) if p else -math.inf) for token, p in position.items()),
        )
        for position in positions
    )
    return EngineReply("".join(token.token for token in tokens), tokens)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12.0),
        ("+12", 12.0),
        ("-12", -12.0),
        ("0", 0.0),
        (" -7 ", -7.0),
        ("+ 7", 7.0),
        ("12.5", 12.5),
        ("100%", 100.0),
        ("5.", 5.0),
        ("1<|im_end|>", 1.0),
        ("1<|im_end|>\n<|endoftext|>", 1.0),
        ("1</s>", 1.0),
        ("２", 2.0),
    ],
)
def test_plain_reading_takes_the_text(text, number):
    assert read_number(EngineReply(text, ()), "plain") == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "<|im_end|>",
        "nan",
        "inf",
        "-",
        "1 2",
        "1.05.0",
        "1e5",
        "1_0",
        "²",
        "<score>5",
        "12abc",
    ],
)
@pytest.mark.parametrize("reading", ["plain", "rich", "exact"])
def test_text_without_one_number_is_refused_with_the_reply(text, reading):
    with pytest.raises(CriticResponseError) as caught:
        read_number(EngineReply(text, tuple(EngineToken(c, 0.0, ()) for c in text)), reading)
    assert repr(text) in str(caught.value)


def test_rich_reading_is_the_weighted_mean_with_one_decimal():
    # (0.5 * 10 + 0.25 * 20) / 0.75 = 13.33; 40 has less than a tenth of 0.5, "a" is no number
    reply = reply_of({"+": 0.9}, {"10": 0.5, "20": 0.25, "a": 0.2, "40": 0.04}, {"<|im_end|>": 1.0})
    assert read_number(reply, "rich") == 13.3
    assert read_progress(reply, "rich") == pytest.approx(0.133, abs=1e-12)


def test_rich_reading_keeps_the_sign_that_was_said():
    assert read_number(reply_of({"-": 0.5, "+": 0.5}, {"10": 1.0}), "rich") == -10.0


def test_candidate_below_a_tenth_does_not_count():
    assert read_number(reply_of({"8": 1.0, "0": 0.099}), "rich") == 8.0
    assert read_number(reply_of({"8": 1.0, "0": 0.11}), "rich") == 7.2  # 8 / 1.11 = 7.207


def test_cutoff_is_relative_to_the_best_candidate_even_if_it_is_no_number():
    # "yes" sets the bar at 0.06, which "1" passes and "0" does not
    assert read_done(reply_of({"1": 0.3, "0": 0.05}), "rich") == 0.9  # 0.3 / 0.35 = 0.857
    tokens = (TokenCandidate("yes", math.log(0.6)), TokenCandidate("1", math.log(0.3)))
    low = TokenCandidate("0", math.log(0.05))
    reply = EngineReply("1", (EngineToken("1", math.log(0.3), (*tokens, low)),))
    assert read_done(reply, "rich") == 1.0


def test_superscript_is_no_number():
    assert read_number(reply_of({"1": 0.6, "²": 0.3}), "rich") == 1.0


def test_exact_reading_neither_cuts_nor_rounds():
    # 0.96 / (0.96 + 0.04); the rich reading drops the 0 and says 1
    reply = reply_of({"1": 0.96, "0": 0.04})
    assert read_done(reply, "exact") == pytest.approx(0.96, abs=1e-12)
    assert read_done(reply, "rich") == 1.0
    assert read_done(reply, "plain") == 1.0


def test_only_ten_candidates_count():
    # 0 has a fifth of the best probability and would pull the mean to 5.9, but it is the eleventh
    position = {"7": 0.5} | dict.fromkeys("abcdefghi", 0.01)
    assert read_number(reply_of(position | {"0": 0.1}), "rich") == 7.0


def test_two_adjacent_numeric_tokens_are_refused_by_rich_and_read_by_plain():
    reply = reply_of({"+": 1.0}, {"1": 1.0}, {"5": 1.0}, {"<|im_end|>": 1.0})
    with pytest.raises(
        CriticResponseError, match=r"got '\+15<\|im_end\|>'. It reads as '\+1.05.0'.*reading='plain'"
    ):
        read_number(reply, "rich")
    assert read_number(reply, "plain") == 15.0


@pytest.mark.parametrize("reading", ["rich", "exact"])
@pytest.mark.parametrize("logprob", [math.nan, -math.inf])
def test_useless_probabilities_are_refused(reading, logprob):
    reply = EngineReply("1", (EngineToken("1", logprob, (TokenCandidate("1", logprob),)),))
    with pytest.raises(CriticResponseError, match="usable numeric candidate for token '1'"):
        read_done(reply, reading)


def test_nan_beside_a_good_candidate_is_refused():
    tokens = (TokenCandidate("1", -0.1), TokenCandidate("0", math.nan))
    with pytest.raises(CriticResponseError, match="'0' nan"):
        read_done(EngineReply("1", (EngineToken("1", -0.1, tokens),)), "rich")


def test_token_without_candidates_is_refused_by_rich():
    with pytest.raises(CriticResponseError, match="Got none"):
        read_number(EngineReply("1", (EngineToken("1", 0.0, ()),)), "rich")


@pytest.mark.parametrize("reading", ["plain", "rich", "exact"])
def test_thinking_reads_what_follows_the_thought(reading):
    reply = scripted_reply("<think>first 12% second 40%</think> -30")
    assert read_number(reply, reading, thinking=True) == -30.0


def test_numbers_in_the_thought_need_no_candidates():
    thought = tuple(EngineToken(token, 0.0, ()) for token in ("<think>", "12", "</think>", "+"))
    reply = EngineReply("<think>12</think>+7", (*thought, EngineToken("7", 0.0, (TokenCandidate("7", 0.0),))))
    assert read_number(reply, "rich", thinking=True) == 7.0


@pytest.mark.parametrize("reading", ["plain", "rich"])
def test_unfinished_thought_is_refused(reading):
    with pytest.raises(CriticResponseError, match=r"a number after </think>.*max_thinking_tokens"):
        read_number(scripted_reply("<think>first 12"), reading, thinking=True)


def test_long_reply_is_quoted_by_its_end():
    with pytest.raises(CriticResponseError) as caught:
        read_number(EngineReply("x" * 5000 + "THE END", ()), "plain")
    assert "THE END" in str(caught.value)
    assert len(str(caught.value)) < 700


def test_number_beyond_floating_point_is_refused():
    with pytest.raises(CriticResponseError, match="Expected one number"):
        read_number(EngineReply("9" * 400, ()), "plain")


TOKENS = st.sampled_from(
    ["0", "1", "12", "9" * 400, "+", "-", ".", " ", "</think>", "<|im_end|>", "²", "nan"]
) | st.text(max_size=3)
CANDIDATES = st.lists(st.builds(TokenCandidate, TOKENS, st.floats()), max_size=12).map(tuple)


@given(
    tokens=st.lists(st.builds(EngineToken, TOKENS, st.floats(), CANDIDATES), max_size=6).map(tuple),
    reading=st.sampled_from(["plain", "rich", "exact"]),
    thinking=st.booleans(),
)
def test_any_reply_gives_a_finite_number_or_is_refused(tokens, reading, thinking):
    reply = EngineReply("".join(token.token for token in tokens), tokens)
    try:
        number = read_number(reply, reading, thinking=thinking)
    except CriticResponseError:
        number = None
    assert number is None or math.isfinite(number)
