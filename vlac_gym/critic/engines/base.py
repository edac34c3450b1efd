"""What a critic asks of a vision-language model: `Engine`, `EngineRequest`, `EngineReply`, `EngineToken`.

An engine turns prompts with frames into reply tokens with log-probabilities. It knows nothing of tasks,
scores or rewards; `vlac_gym.critic.vlac` knows nothing of models.
"""

__all__ = ["AnswerKind", "Engine", "EngineReply", "EngineRequest", "EngineToken", "TokenCandidate"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from vlac_gym.types import Frame

AnswerKind = Literal["number", "signed_number", "text"]
"""What the reply must be: a number (done), an optional sign and a number (pair), or free text (thinking)."""


@dataclass(frozen=True)
class TokenCandidate:
    """One token that the model could have said, with its natural-log probability under the full softmax."""

    token: str
    logprob: float


@dataclass(frozen=True)
class EngineToken:
    """One reply token.

    Attributes:
        token: The text of the token.
        logprob: Its natural-log probability under the full softmax (no temperature, no constraint).
        candidates: The most likely tokens at this position, best first (the reference asks for 10).
    """

    token: str
    logprob: float
    candidates: tuple[TokenCandidate, ...]


@dataclass(frozen=True)
class EngineReply:
    """A greedy reply: the text and its tokens, special tokens included as the model said them."""

    text: str
    tokens: tuple[EngineToken, ...]


@dataclass(frozen=True, eq=False)
class EngineRequest:
    """One prompt.

    Attributes:
        system: The system prompt.
        prompt: The user's text. `<image>` marks each frame's place; a prompt without marks gets all
            frames before the text.
        frames: Frames in the order of their marks, uint8 (H, W, 3).
        answer: What the reply must be; engines may stop as soon as it is there.
        max_new_tokens: Upper bound of reply tokens.
        shared_frames: How many leading frames are the same for many requests (reference frames);
            a hint for caching, never a change of the result.
    """

    system: str
    prompt: str
    frames: tuple[Frame, ...]
    answer: AnswerKind = "text"
    max_new_tokens: int = 16
    shared_frames: int = 0


class Engine(Protocol):
    """A vision-language model behind one call."""

    def generate(self, requests: Sequence[EngineRequest]) -> list[EngineReply]:
        """Answers every request, in order, greedily and deterministically.

        Raises:
            CriticResponseError, CriticServerError, CriticConnectionError, CriticTimeoutError,
            CriticOverloadedError: as in `vlac_gym.errors`.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """`name`, `model`, `device` and further JSON-serialisable facts; loads nothing.

        `weights_digest`, of the model's files, where the engine reads them: it tells two models of one name apart.
        """
        ...

    def sleep(self) -> None:
        """Frees accelerator memory until `wake`; engines without such memory do nothing."""
        ...

    def wake(self) -> None:
        """Undoes `sleep`."""
        ...

    def close(self) -> None:
        """Frees everything; safe to call twice."""
        ...
