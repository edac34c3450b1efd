"""Asking a critic in batches, with every call timed and every unusable answer counted: `AskedCritic`, `Call`."""

__all__ = ["AskedCritic", "Call"]

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vlac_gym.critic.answers import checked_answers
from vlac_gym.critic.base import Critic
from vlac_gym.errors import ConfigError, CriticResponseError
from vlac_gym.report_card.statistics import Array
from vlac_gym.types import FloatArray, Frame


@dataclass(frozen=True)
class Call:
    """One call of the critic.

    Attributes:
        kind: `"success_prob"`, `"progress"` or `"value"`.
        batch: Frames or pairs in it.
        seconds: How long it took.
    """

    kind: str
    batch: int
    seconds: float


class AskedCritic:
    """A critic whose calls are cut into batches, timed and checked.

    A batch that brings no usable answer is asked again one by one; what still has none becomes NaN and is
    counted in `failures`. Other critic errors are raised.

    Args:
        critic: Who is asked.
        batch_size: Most frames or pairs of one call.

    Attributes:
        calls: Every call so far, in order.
        failures: Questions without a usable answer.
        questions: Questions asked.
    """

    def __init__(self, critic: Critic, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ConfigError(f"Expected batch_size >= 1, got {batch_size}.")
        self.critic = critic
        self.batch_size = batch_size
        self.calls: list[Call] = []
        self.failures = 0
        self.questions = 0

    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> Array:
        """`Critic.success_prob` as float64 (N,), NaN where there was no usable answer."""
        return self._in_batches(
            "success_prob",
            len(frames),
            0.0,
            lambda part: self.critic.success_prob(frames[part], tasks[part]),
        )

    def progress(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> Array:
        """`Critic.progress` as float64 (N,), NaN where there was no usable answer."""
        return self._in_batches(
            "progress",
            len(before),
            -1.0,
            lambda part: self.critic.progress(before[part], after[part], tasks[part], references),
        )

    def value(self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None) -> Array:
        """`Critic.value` as float64 (T,), all NaN if there was no usable answer."""
        self.questions += 1
        start = time.perf_counter()
        try:
            answer = self.critic.value(frames, task, references)
            answer = checked_answers(answer, len(frames), 0.0, "value")
        except CriticResponseError:
            self.failures += 1
            return np.full(len(frames), np.nan)
        self.calls.append(Call("value", len(frames), time.perf_counter() - start))
        return answer.astype(np.float64)

    def _in_batches(self, kind: str, total: int, low: float, ask: Callable[[slice], FloatArray]) -> Array:
        answers = np.full(total, np.nan)
        self.questions += total
        for begin in range(0, total, self.batch_size):
            part = slice(begin, min(begin + self.batch_size, total))
            try:
                answers[part] = self._timed(kind, part, low, ask)
            except CriticResponseError:
                self._one_by_one(kind, part, low, ask, answers)
        return answers

    def _one_by_one(
        self, kind: str, part: slice, low: float, ask: Callable[[slice], FloatArray], answers: Array
    ) -> None:
        for index in range(part.start, part.stop):
            try:
                answers[index] = self._timed(kind, slice(index, index + 1), low, ask)[0]
            except CriticResponseError:
                self.failures += 1

    def _timed(self, kind: str, part: slice, low: float, ask: Callable[[slice], FloatArray]) -> FloatArray:
        start = time.perf_counter()
        raw = ask(part)
        seconds = time.perf_counter() - start
        answers = checked_answers(raw, part.stop - part.start, low, kind)
        self.calls.append(Call(kind, part.stop - part.start, seconds))
        return answers
