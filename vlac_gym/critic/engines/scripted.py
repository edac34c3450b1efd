"""An engine without a model for tests and examples: `ScriptedEngine`, `scripted_reply`."""

__all__ = ["ScriptedEngine", "scripted_reply"]

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vlac_gym.critic.engines.base import EngineReply, EngineRequest, EngineToken, TokenCandidate
from vlac_gym.errors import ConfigError, CriticServerError

END_TOKEN = "<|im_end|>"

# What VLAC's tokenizer does to a short reply: signs and whole numbers up to 999 are single tokens.
_TOKEN = re.compile(r"\d{1,3}|<\|[^|<>]*\|>|.", re.DOTALL)


def scripted_reply(text: str, candidates: Mapping[str, float] | None = None) -> EngineReply:
    """A reply that says `text` and ends.

    Args:
        text: The reply, e.g. `"+12"` or `"1"`.
        candidates: Token -> probability in (0, 1], for each numeric token in `text`; by default every token is
            certain. Order does not matter.

    Example:
        >>> reply = scripted_reply("1", {"1": 0.75, "0": 0.25})
        >>> [token.token for token in reply.tokens]
        ['1', '<|im_end|>']
        >>> [one.token for one in reply.tokens[0].candidates]
        ['1', '0']
    """
    tokens = []
    for token in [*_TOKEN.findall(text), END_TOKEN]:
        likely = candidates if candidates and token.isdigit() else {token: 1.0}
        ranked = sorted(likely.items(), key=lambda item: -item[1])
        options = tuple(TokenCandidate(name, math.log(probability)) for name, probability in ranked)
        said = next((one.logprob for one in options if one.token == token), -math.inf)
        tokens.append(EngineToken(token, said, options))
    return EngineReply(text, tuple(tokens))


class ScriptedEngine:
    """Answers from a list or by a function, and keeps what it was asked.

    Args:
        script: Replies in the order of the requests, or a function of the request. A text stands for
            `scripted_reply(text)`.

    Attributes:
        batches: Every batch of requests that `generate` received.
        is_closed: Whether `close` was called.
        is_asleep: Whether `sleep` was called last.

    Example:
        >>> from vlac_gym.critic.vlac.critic import VLACCritic
        >>> import numpy as np
        >>> critic = VLACCritic(ScriptedEngine(["0", "1"]))
        >>> frame = np.zeros((8, 8, 3), np.uint8)
        >>> critic.success_prob([frame, frame], ["open the drawer"] * 2).tolist()
        [0.0, 1.0]
    """

    def __init__(
        self, script: Iterable[EngineReply | str] | Callable[[EngineRequest], EngineReply | str]
    ) -> None:
        if isinstance(script, str):
            raise ConfigError(f"Expected a list of replies or a function, got the text {script!r}.")
        self.batches: list[tuple[EngineRequest, ...]] = []
        self.is_closed = False
        self.is_asleep = False
        self._answer: Callable[[EngineRequest], EngineReply | str]
        if callable(script):
            self._answer = script
        else:
            replies = list(script)
            remaining = iter(replies)
            self._answer = lambda request: _next_reply(remaining, len(replies))

    @property
    def requests(self) -> list[EngineRequest]:
        """All requests so far, in order."""
        return [request for batch in self.batches for request in batch]

    def generate(self, requests: Sequence[EngineRequest]) -> list[EngineReply]:
        """Answers from the script; raises `CriticServerError` when a list of replies is used up."""
        self.batches.append(tuple(requests))
        answers = [self._answer(request) for request in requests]
        return [scripted_reply(answer) if isinstance(answer, str) else answer for answer in answers]

    def describe(self) -> dict[str, Any]:
        """Name `scripted`, no model."""
        return {"name": "scripted", "model": "none", "device": "cpu"}

    def sleep(self) -> None:
        """Notes that it sleeps."""
        self.is_asleep = True

    def wake(self) -> None:
        """Notes that it is awake."""
        self.is_asleep = False

    def close(self) -> None:
        """Notes that it is closed."""
        self.is_closed = True


def _next_reply(remaining: Any, count: int) -> EngineReply | str:
    reply: EngineReply | str | None = next(remaining, None)
    if reply is None:
        raise CriticServerError(f"The script has {count} replies and one more was asked for.")
    return reply
