"""From reply tokens to numbers: `read_number`, `read_progress`, `read_done`, `reply_text`.

VLAC answers in text: signed percent for a pair, 0 or 1 for done. Percent becomes units of 1 here and nowhere
else. Whatever holds no finite number raises `CriticResponseError` with the reply.
"""

__all__ = [
    "MIN_RELATIVE_PROBABILITY",
    "TOP_CANDIDATES",
    "Reading",
    "read_done",
    "read_number",
    "read_progress",
]

import math
import re
from collections.abc import Sequence
from typing import Literal

from vlac_gym.critic.engines.base import EngineReply, EngineToken, TokenCandidate
from vlac_gym.errors import CriticResponseError

Reading = Literal["rich", "plain", "exact"]
"""How a reply becomes a number.

`plain`: the text as said, e.g. `+12`. `rich`: each numeric token is replaced by the probability-weighted mean
of the numeric candidates that have more than a tenth of the top candidate's probability, printed with one
decimal, as the VLAC reference does. `exact`: the same mean over all numeric candidates, not rounded; ours,
for calibration, where the reference's rounding makes ties.
"""

TOP_CANDIDATES = 10
"""Candidates per token that the readings look at: `top_logprobs` of the VLAC reference."""

MIN_RELATIVE_PROBABILITY = 0.1
"""Share of the top candidate's probability that a number must exceed to count in the rich reading."""

_NUMBER = re.compile(r"\s*([+-]?)\s*(\d+(?:\.\d+)?)\s*%?\.?\s*")
_END = re.compile(r"<\|[^|<>]*\|>|</s>")
_END_RUN = re.compile(rf"(?:(?:{_END.pattern})\s*)+$")
_THINKING_END = "</think>"
_QUOTED_CHARS = 200


def read_progress(reply: EngineReply, reading: Reading = "rich", *, thinking: bool = False) -> float:
    """Progress of a pair in units of 1: percent / 100, + is closer to the goal; not clipped.

    Args:
        reply: Reply to a pair prompt.
        reading: See `Reading`.
        thinking: The number stands after `</think>`.

    Raises:
        CriticResponseError: The reply holds no number, or more than one.
    """
    return read_number(reply, reading, thinking=thinking) / 100.0


def read_done(reply: EngineReply, reading: Reading = "rich") -> float:
    """The answer to a done prompt: 0 is no, 1 is yes; not clipped.

    Raises:
        CriticResponseError: The reply holds no number, or more than one.
    """
    return read_number(reply, reading)


def read_number(reply: EngineReply, reading: Reading = "rich", *, thinking: bool = False) -> float:
    """The one number of a reply, in the unit that the model speaks.

    Args:
        reply: Reply of an engine; end tokens at its end are ignored.
        reading: See `Reading`.
        thinking: Read only what follows `</think>`.

    Raises:
        CriticResponseError: No number, several, an unfinished thought, or probabilities that are NaN.
    """
    text = _said_text(reply, thinking) if reading == "plain" else _weighted_text(reply, reading, thinking)
    match = _NUMBER.fullmatch(text)
    number = float(match.group(1) + match.group(2)) if match else math.nan
    if not math.isfinite(number):  # hundreds of digits are infinite
        hint = (
            "" if reading == "plain" else " Two adjacent numeric tokens can only be read by reading='plain'."
        )
        raise _no_number(reply, "one number", f"It reads as {text[-_QUOTED_CHARS:]!r}.{hint}")
    return number


def _said_text(reply: EngineReply, thinking: bool) -> str:
    text = _END_RUN.sub("", reply.text)
    if not thinking:
        return text
    _, found, answer = text.partition(_THINKING_END)
    if not found:
        raise _unfinished(reply)
    return answer


def _weighted_text(reply: EngineReply, reading: Reading, thinking: bool) -> str:
    tokens = list(reply.tokens)
    while tokens and (not tokens[-1].token.strip() or _END.fullmatch(tokens[-1].token.strip())):
        tokens.pop()
    head = ""
    if thinking:  # Numbers inside the thought are not the answer and may lack candidates.
        thought = ""
        while _THINKING_END not in thought:
            if not tokens:
                raise _unfinished(reply)
            thought += tokens.pop(0).token
        head = thought.partition(_THINKING_END)[2]
    return head + "".join(
        _weighted_number(reply, token, reading) if _is_numeric(token.token) else token.token
        for token in tokens
    )


def _weighted_number(reply: EngineReply, token: EngineToken, reading: Reading) -> str:
    candidates = token.candidates[:TOP_CANDIDATES]
    if candidates and token.token not in {one.token for one in candidates}:
        raise _no_number(
            reply,
            f"the token {token.token!r} among its own candidates",
            f"Got {', '.join(repr(one.token) for one in candidates)}.",
        )
    cutoff = (
        MIN_RELATIVE_PROBABILITY * _probability(candidates[0]) if candidates and reading == "rich" else 0.0
    )
    total, weight = _weighted_sum(candidates, cutoff)
    if not weight > 0.0 or not math.isfinite(total):
        probabilities = ", ".join(f"{one.token!r} {_probability(one):.3g}" for one in candidates) or "none"
        raise _no_number(
            reply, f"a usable numeric candidate for token {token.token!r}", f"Got {probabilities}."
        )
    mean = total / weight
    return f"{mean:.1f}" if reading == "rich" else f"{mean:.17f}"


def _weighted_sum(candidates: Sequence[TokenCandidate], cutoff: float) -> tuple[float, float]:
    total = weight = 0.0
    for one in candidates:
        probability = _probability(one)
        if math.isnan(probability):
            return math.nan, math.nan
        if _is_numeric(one.token) and probability > cutoff:
            total += float(one.token) * probability
            weight += probability
    return total, weight


def _probability(candidate: TokenCandidate) -> float:
    # A log-probability above 0 is rounding of the engine; far above, exp would overflow.
    return math.nan if math.isnan(candidate.logprob) else math.exp(min(candidate.logprob, 1.0))


def _is_numeric(token: str) -> bool:
    # isdigit, which the reference uses, is true for superscripts too, and those float refuses.
    return token.isdecimal()


def _unfinished(reply: EngineReply) -> CriticResponseError:
    return _no_number(reply, f"a number after {_THINKING_END}", "Raise max_thinking_tokens?")


def _no_number(reply: EngineReply, expected: str, detail: str) -> CriticResponseError:
    said = reply.text if len(reply.text) <= _QUOTED_CHARS else "…" + reply.text[-_QUOTED_CHARS:]
    return CriticResponseError(f"Expected {expected} in the critic's reply, got {said!r}. {detail}")
