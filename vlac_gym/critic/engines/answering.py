"""Chooses reply tokens from logits: `Pick`, `SentPick`, `HostPick`, `TokenPicker`, `build_reply`."""

__all__ = ["HostPick", "Pick", "SentPick", "TokenPicker", "build_reply"]

from collections.abc import Callable
from dataclasses import dataclass

from vlac_gym.critic.engines.base import AnswerKind, EngineReply, EngineToken, TokenCandidate
from vlac_gym.critic.engines.chat_prompts import PromptEncoder, ReplyTokens
from vlac_gym.extras import needs

with needs("The transformers engine", "vlac"):
    import torch

_NUM_CANDIDATES = 10
"""The reference asks for the ten most likely tokens."""


@dataclass(frozen=True, eq=False)
class Pick:
    """One reply token of each row of a batch; logprobs are of the full softmax.

    Attributes:
        tokens: int64 (B,).
        logprobs: float32 (B,).
        candidates: int64 (B, 10), most likely first.
        candidate_logprobs: float32 (B, 10).
    """

    tokens: torch.Tensor
    logprobs: torch.Tensor
    candidates: torch.Tensor
    candidate_logprobs: torch.Tensor

    def first_rows(self, count: int) -> "Pick":
        """Of so many rows, in the same memory."""
        parts = (self.tokens, self.logprobs, self.candidates, self.candidate_logprobs)
        return Pick(*(part[:count] for part in parts))

    def send(self) -> "SentPick":
        """Sends all to the host; waits for nothing."""
        return SentPick(self)


class SentPick:
    """A `Pick` on its way to the host, all of it behind one wait.

    For a GPU that other processes draw on: where it serves them in turn, each wait is one for this process's turn, and
    four tensors read one by one would take four. The waiting thread sleeps; a spinning one would take a core from those
    processes. Only CUDA's copies are awaited this way; of other devices each copy waits for itself.
    """

    def __init__(self, pick: Pick) -> None:
        parts = (pick.tokens, pick.logprobs, pick.candidates, pick.candidate_logprobs)
        # Other devices, such as Apple's, give a tensor that is not filled yet, and nothing here would wait for it.
        self._copies = [part.to("cpu", non_blocking=pick.tokens.is_cuda) for part in parts]
        self._arrival: torch.cuda.Event | None = None
        if pick.tokens.is_cuda:
            self._arrival = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._arrival.record(torch.cuda.current_stream(pick.tokens.device))

    def read(self) -> "HostPick":
        """The same as lists; waits for the device."""
        if self._arrival is not None:
            self._arrival.synchronize()
        tokens, logprobs, candidates, candidate_logprobs = (copy.tolist() for copy in self._copies)
        rows = [list(zip(*row)) for row in zip(candidates, candidate_logprobs)]
        return HostPick(tokens, logprobs, rows)


@dataclass(frozen=True, eq=False)
class HostPick:
    """A `Pick` as lists, one entry per row; candidates are (token id, logprob), most likely first."""

    tokens: list[int]
    logprobs: list[float]
    candidates: list[list[tuple[int, float]]]


class TokenPicker:
    """Greedy choice among the tokens that an answer allows at a step."""

    def __init__(self, reply_tokens: ReplyTokens, device: torch.device) -> None:
        numbers = torch.tensor(reply_tokens.numbers, device=device)
        both = torch.tensor(sorted(reply_tokens.numbers + reply_tokens.signs), device=device)
        self._allowed = {"number": [numbers], "signed_number": [both, numbers]}

    def allowed_tokens(self, answer: AnswerKind, step: int) -> list[int]:
        """Ids that a numeric answer allows at a step, ascending."""
        allowed: list[int] = self._allowed[answer][step].tolist()
        return allowed

    def pick(self, logits: torch.Tensor, answer: AnswerKind, step: int) -> Pick:
        """Picks the most likely allowed token of each row of float32 logits (B, vocabulary)."""
        logprobs = torch.log_softmax(logits, dim=-1)
        top = logprobs.topk(min(_NUM_CANDIDATES, logprobs.shape[-1]))
        if answer == "text":
            tokens = logprobs.argmax(dim=-1)
        else:
            allowed = self._allowed[answer][step]
            tokens = allowed[logprobs[:, allowed].argmax(dim=-1)]
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        return Pick(tokens, chosen, top.indices, top.values)


def build_reply(picks: list[HostPick], row: int, answer: AnswerKind, encoder: PromptEncoder) -> EngineReply:
    """The reply of one row; it ends with the first number of a numeric answer, or a stop token."""
    ends = _end_test(answer, encoder.reply_tokens)
    ids: list[int] = []
    tokens: list[EngineToken] = []
    for pick in picks:
        token = pick.tokens[row]
        candidates = tuple(TokenCandidate(encoder.token_text(i), lp) for i, lp in pick.candidates[row])
        ids.append(token)
        tokens.append(EngineToken(encoder.token_text(token), pick.logprobs[row], candidates))
        if ends(token):
            break
    return EngineReply(encoder.reply_text(ids), tuple(tokens))


def _end_test(answer: AnswerKind, reply_tokens: ReplyTokens) -> Callable[[int], bool]:
    if answer == "text":
        return reply_tokens.stops.__contains__
    signs = frozenset(reply_tokens.signs)
    return lambda token: token not in signs
