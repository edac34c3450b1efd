"""Questions to a referee beside the envs' steps: `Asking`."""

__all__ = ["Asking"]

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, get_args

from vlac_gym.rule.episode import Question
from vlac_gym.rule.round import OpenStep
from vlac_gym.vector.referee import Referee
from vlac_gym.vector.wake_pipe import WakePipe

_KINDS = get_args(Question)


class _Call(NamedTuple):
    """A call that was begun, and the steps that it is about."""

    future: Future[None]
    steps: dict[int, OpenStep]


class Asking:
    """Asks about the steps that have come together, in threads: one call at a time or, where the referee can answer
    several at once, one of each kind.

    Attributes:
        wake: Rung when a call has returned.
    """

    def __init__(self) -> None:
        self.wake = WakePipe()
        self._executor: ThreadPoolExecutor | None = None
        self._calls: dict[type[Question], _Call] = {}
        self._since_s: float | None = None

    def askable(self, referee: Referee, questions: dict[int, OpenStep]) -> dict[int, OpenStep]:
        """Those of the steps with a question that a call may begin about now."""
        if self._calls and not referee.takes_concurrent_calls:
            return {}
        asked = {i for call in self._calls.values() for i in call.steps}  # another thread works on those
        free = {i: step for i, step in questions.items() if i not in asked}
        return {i: step for i, step in free.items() if type(step.question) not in self._calls}

    def wait_s(self, window_s: float) -> float:
        """How long open questions should wait yet for others, if the first of them waits for at most `window_s`."""
        if self._since_s is None:
            self._since_s = time.monotonic()
        return max(0.0, self._since_s + window_s - time.monotonic())

    def ask(self, referee: Referee, questions: dict[int, OpenStep]) -> None:
        """Begins a call about those of the `askable` steps whose question is of the first one's kind; where the referee
        takes several at once, one for each kind. One that does not is asked by one thread: a model may keep things by
        thread.
        """
        self._since_s = None
        count = len(_KINDS) if referee.takes_concurrent_calls else 1
        if self._executor is None:
            self._executor = ThreadPoolExecutor(count, thread_name_prefix="vlac-gym-critic")
        by_kind: dict[type[Question], dict[int, OpenStep]] = {}
        for i, step in questions.items():
            if step.question is not None:
                by_kind.setdefault(type(step.question), {})[i] = step
        for kind in list(by_kind)[:count]:
            future = self._executor.submit(referee.ask_once, by_kind[kind])
            self._calls[kind] = _Call(future, by_kind[kind])
            future.add_done_callback(lambda _: self.wake.ring())

    def answered(self) -> dict[int, OpenStep]:
        """The steps of calls that have returned, which may have further questions; empty if none has.

        Raises:
            CriticError: As the referee raises it.
        """
        self.wake.clear()
        asked: dict[int, OpenStep] = {}
        for kind in [kind for kind, call in self._calls.items() if call.future.done()]:
            future, steps = self._calls.pop(kind)
            future.result()
            asked |= steps
        return asked

    def close(self) -> None:
        """Waits for the calls under way."""
        if self._executor is not None:
            self._executor.shutdown()
        self.wake.close()
