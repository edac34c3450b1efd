"""From requests to batches that run as one: `Batch`, `Item`, `most_steps`, `plan_batches`."""

__all__ = ["Batch", "Item", "most_steps", "plan_batches"]

from collections.abc import Container, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from vlac_gym.critic.engines.base import AnswerKind, EngineRequest
from vlac_gym.critic.engines.batches import form_batches
from vlac_gym.critic.engines.chat_prompts import EncodedPrompt

PrefixKey = tuple[bytes, tuple[bytes, ...]]
"""Token ids of a prefix and digests of its frames."""

_PREFIX_TOKENS_PER_ROW_TOKEN = 8
"""A prefix token costs a row about an eighth of an own token: it is attended to, not computed."""

_STEPS: dict[AnswerKind, int] = {"number": 1, "signed_number": 2}


@dataclass(frozen=True, eq=False)
class Item:
    """One request, encoded.

    Attributes:
        index: Its place among the requests of the call.
        request: The request.
        prompt: Its token ids.
        hashing: Content digest of each frame, on its way in a thread.
    """

    index: int
    request: EngineRequest
    prompt: EncodedPrompt
    hashing: "tuple[Future[bytes], ...]"

    @property
    def digests(self) -> tuple[bytes, ...]:
        """Content digest of each frame; waits for the threads."""
        return tuple(future.result() for future in self.hashing)

    @property
    def prefix_length(self) -> int:
        """Tokens before the first frame of its own: what requests with the same shared frames begin with."""
        starts, shared = self.prompt.image_starts, self.request.shared_frames
        if not starts:
            return 0
        return starts[shared] if shared < len(starts) else starts[-1] + self.prompt.image_tokens

    @property
    def prefix_key(self) -> PrefixKey:
        """Equal for requests whose prefixes hold the same text and frames."""
        shared = self.hashing[: self.request.shared_frames]
        return self.prompt.ids[: self.prefix_length].tobytes(), tuple(future.result() for future in shared)


@dataclass(frozen=True, eq=False)
class Batch:
    """Items that run together.

    Attributes:
        items: At least one.
        answer: Their common kind of answer.
        max_steps: Most tokens to generate for each.
        prefix_length: Leading tokens computed once for all; 0 if nothing is shared.
    """

    items: tuple[Item, ...]
    answer: AnswerKind
    max_steps: int
    prefix_length: int


def most_steps(request: EngineRequest) -> int:
    """Most tokens to generate for it."""
    return min(_STEPS.get(request.answer, request.max_new_tokens), request.max_new_tokens)


def plan_batches(items: Sequence[Item], max_tokens: int, known_prefixes: Container[PrefixKey]) -> list[Batch]:
    """Groups items by shared prefix and kind of answer, then by length.

    A prefix is computed apart if several items begin with it, if it holds frames (they are shared on purpose)
    or if it is known already.
    """
    groups: dict[tuple[PrefixKey, AnswerKind, int], list[Item]] = {}
    for item in items:
        kind = (item.prefix_key, item.request.answer, most_steps(item.request))
        groups.setdefault(kind, []).append(item)
    batches: list[Batch] = []
    for (prefix_key, answer, steps), members in groups.items():
        first = members[0]
        shares = len(members) > 1 or first.request.shared_frames > 0 or prefix_key in known_prefixes
        prefix_length = first.prefix_length if shares else 0
        lengths = [len(item.prompt.ids) - prefix_length for item in members]
        extra = prefix_length // _PREFIX_TOKENS_PER_ROW_TOKEN
        batches += [
            Batch(tuple(members[i] for i in indices), answer, steps, prefix_length)
            for indices in form_batches(lengths, max_tokens, extra)
        ]
    return batches
