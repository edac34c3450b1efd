"""Questions to a referee beside the envs' steps: `Asking`."""

__all__ = ["Asking"]

import time
from concurrent.futures import Future, ThreadPoolExecutor

from vlac_gym.rule.round import OpenStep
from vlac_gym.vector.referee import Referee
from vlac_gym.vector.wake_pipe import WakePipe


class Asking:
    """Asks about the steps that have come together, in a thread, with one call at a time.

    Attributes:
        wake: Rung when a call has returned.
    """

    def __init__(self) -> None:
        self.wake = WakePipe()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="vlac-gym-critic")
        self._asked: dict[int, OpenStep] = {}
        self._call: Future[None] | None = None
        self._since_s: float | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a call is not answered yet."""
        return self._call is not None

    def wait_s(self, window_s: float) -> float:
        """How long open questions should wait yet for others, if the first of them waits for at most `window_s`."""
        if self._since_s is None:
            self._since_s = time.monotonic()
        return max(0.0, self._since_s + window_s - time.monotonic())

    def ask(self, referee: Referee, questions: dict[int, OpenStep]) -> None:
        """Begins a call about the first of these steps and those with a question of its kind."""
        self._since_s = None
        self._asked = questions
        self._call = self._executor.submit(referee.ask_oldest, questions)
        self._call.add_done_callback(lambda _: self.wake.ring())

    def answered(self) -> dict[int, OpenStep]:
        """The steps of a call that has returned, which may have further questions; empty if none has.

        Raises:
            CriticError: As the referee raises it.
        """
        self.wake.clear()
        if self._call is None or not self._call.done():
            return {}
        call, self._call = self._call, None
        call.result()
        asked, self._asked = self._asked, {}
        return asked

    def close(self) -> None:
        """Waits for the call under way."""
        self._executor.shutdown()
        self.wake.close()
