"""Engine requests as OpenAI chat completions and back: `request_body`, `read_reply`. Pure functions."""

__all__ = ["TOP_LOGPROBS", "read_reply", "request_body"]

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vlac_gym.critic.engines.base import EngineReply, EngineRequest, EngineToken, TokenCandidate
from vlac_gym.errors import CriticProtocolError, CriticResponseError

TOP_LOGPROBS = 10
"""Candidates per token, as the VLAC reference asks for."""

_IMAGE_MARK = "<image>"
_QUOTED_CHARS = 300
_NO_LOGPROB = -9999.0
"""What servers say of a token whose log-probability they do not know, as OpenAI's API defines it."""


def request_body(request: EngineRequest, model: str, image_urls: Sequence[str]) -> dict[str, Any]:
    """The JSON body of `POST /chat/completions` for one request.

    Args:
        request: Its marks and frames agree in number, or it has no marks.
        model: Name of the served model.
        image_urls: One URL per frame, in the order of the frames.
    """
    messages: list[dict[str, Any]] = []
    if request.system:
        messages.append({"role": "system", "content": request.system})
    messages.append({"role": "user", "content": _content(request.prompt, image_urls)})
    return {
        "model": model,
        "messages": messages,
        "max_tokens": request.max_new_tokens,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": TOP_LOGPROBS,
    }


def _content(prompt: str, image_urls: Sequence[str]) -> list[dict[str, Any]]:
    """Text and pictures in turn; the chat template of the server writes the newline after each picture."""
    marked = prompt if _IMAGE_MARK in prompt else _IMAGE_MARK * len(image_urls) + prompt
    parts: list[dict[str, Any]] = []
    for i, text in enumerate(marked.split(_IMAGE_MARK)):
        if i > 0:
            parts.append({"type": "image_url", "image_url": {"url": image_urls[i - 1]}})
        if text:
            parts.append({"type": "text", "text": text})
    return parts


def read_reply(body: Any) -> EngineReply:
    """The reply in the body of a chat completion.

    Raises:
        CriticProtocolError: Not a chat completion, or one without log-probabilities.
        CriticResponseError: No tokens, or log-probabilities that are no numbers.
    """
    try:
        choice = body["choices"][0]
        text = choice["message"]["content"] or ""
        logprobs = choice.get("logprobs")
        if not logprobs or logprobs.get("content") is None:
            raise CriticProtocolError(
                "The reply has no log-probabilities. The server must support logprobs and top_logprobs for chat "
                "completions."
            )
        tokens = tuple(_token(entry) for entry in logprobs["content"])
    except (KeyError, IndexError, TypeError, AttributeError) as e:
        raise CriticProtocolError(f"Expected a chat completion, got {str(body)[:_QUOTED_CHARS]!r}.") from e
    if not tokens:
        raise CriticResponseError(
            f"Expected a reply of at least one token, got {str(body)[:_QUOTED_CHARS]!r}."
        )
    return EngineReply(text, tokens)


def _token(entry: Mapping[str, Any]) -> EngineToken:
    """A token with its candidates, each once and the token itself among them.

    Servers list the token beside the most likely ones, hence twice if it is one of those (as vLLM does), or not at
    all if it is none, e.g. under a grammar.
    """
    said = _candidate(entry)
    listed = list(map(_candidate, entry["top_logprobs"]))
    if said.logprob > _NO_LOGPROB and said.token not in {one.token for one in listed}:
        listed.append(said)
    # A text is one token: byte-level vocabularies, which these models have, hold no text twice.
    distinct: dict[str, TokenCandidate] = {}
    for one in sorted(listed, key=lambda one: -one.logprob):
        distinct.setdefault(one.token, one)
    candidates = list(distinct.values())
    kept = candidates[:TOP_LOGPROBS]
    if said.token in distinct and distinct[said.token] not in kept:
        kept[-1] = distinct[said.token]
    return EngineToken(said.token, said.logprob, tuple(kept))


def _candidate(entry: Mapping[str, Any]) -> TokenCandidate:
    token, logprob = entry["token"], entry["logprob"]
    if not isinstance(logprob, int | float) or math.isnan(logprob):
        raise CriticResponseError(f"Expected a log-probability for token {token!r}, got {logprob!r}.")
    return TokenCandidate(str(token), float(logprob))
