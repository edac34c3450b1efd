"""One round of questions to the critic for any number of episodes: `OpenStep`, `ask_round`.

However many episodes there are, a round is at most one `success_prob`, one `progress` and one value call.
"""

__all__ = ["OpenStep", "ask_round", "checked_answers"]

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from vlac_gym.critic.base import Critic, value_lists
from vlac_gym.errors import CriticError, CriticResponseError
from vlac_gym.rule.episode import AskDone, AskProgress, AskValues, Question, Step, Verdict
from vlac_gym.types import FloatArray, Frame

Asked = TypeVar("Asked", AskDone, AskProgress, AskValues)


class OpenStep:
    """One env step of one episode, from its first question to its verdict.

    Args:
        step: As `Episode.step` gives it; begun at once, so that the step's frame is taken now.
        task: The episode's task text.

    Attributes:
        question: What the critic must answer next; None once there is a verdict.
        error: Why the critic failed here, or None.
        latency_ms: Time of the critic's calls for this step, in ms; None if it was not asked.
    """

    def __init__(self, step: Step, task: str) -> None:
        self.task = task
        self.question: Question | None = None
        self.error: CriticError | None = None
        self.latency_ms: float | None = None
        self._step = step
        self._verdict: Verdict | None = None
        self._go_on(lambda: next(step))

    @property
    def verdict(self) -> Verdict:
        """The verdict of a step that has no question left."""
        assert self._verdict is not None
        return self._verdict

    def answer(self, answer: Any) -> None:
        """Takes the answer to `question`, in the form that its class says."""
        self._go_on(lambda: self._step.send(answer))

    def fail(self, error: CriticError) -> None:
        """Takes that there is no usable answer to `question`."""
        self.error = error
        self._go_on(lambda: self._step.throw(error))

    def _go_on(self, resume: Callable[[], Question]) -> None:
        try:
            self.question = resume()
        except StopIteration as stop:
            self.question, self._verdict = None, stop.value


def ask_round(critic: Critic, steps: Sequence[OpenStep], references: Sequence[Frame] | None = None) -> None:
    """Asks all that the steps want to know, whereupon each has its verdict.

    A call that fails is the error of every step it asked about, a bad answer of its own step alone.

    Args:
        critic: Who is asked.
        steps: Steps of different episodes, with or without a question.
        references: Frames of a successful episode, passed to `progress` and `value`.
    """

    def success_probs(asking: Sequence[OpenStep], asked: Sequence[AskDone]) -> FloatArray:
        frames, tasks = [question.frame for question in asked], [step.task for step in asking]
        return _of_shape(critic.success_prob(frames, tasks), len(asked), "success_prob")

    def progresses(asking: Sequence[OpenStep], asked: Sequence[AskProgress]) -> FloatArray:
        before, after = [question.before for question in asked], [question.after for question in asked]
        answers = critic.progress(before, after, [step.task for step in asking], references=references)
        return _of_shape(answers, len(asked), "progress")

    def values(asking: Sequence[OpenStep], asked: Sequence[AskValues]) -> Sequence[FloatArray]:
        frames, tasks = [question.frames for question in asked], [step.task for step in asking]
        answers = value_lists(critic, frames, tasks, references)
        if len(answers) != len(asked):
            raise CriticResponseError(
                f"Expected {len(asked)} value lists from the critic, got {len(answers)}."
            )
        return answers

    _ask(steps, AskDone, success_probs, lambda answers, n, _: _in_range(answers, n, 0.0, "success_prob"))
    _ask(steps, AskProgress, progresses, lambda answers, n, _: _in_range(answers, n, -1.0, "progress"))
    _ask(
        steps,
        AskValues,
        values,
        lambda answers, n, asked: checked_answers(answers[n], len(asked.frames), 0.0, "value").tolist(),
    )


def checked_answers(answers: object, count: int, low: float, what: str) -> FloatArray:
    """Returns the answers as float32 (count,), all in [low, 1].

    Raises:
        CriticResponseError: Wrong shape, not finite, or out of range.
    """
    array = _of_shape(answers, count, what)
    for n in range(count):
        _in_range(array, n, low, what)
    return array


def _ask(
    steps: Sequence[OpenStep],
    kind: type[Asked],
    call: Callable[[Sequence[OpenStep], Sequence[Asked]], Any],
    answer: Callable[[Any, int, Asked], Any],
) -> None:
    """Asks one call for all steps with a question of this kind; `answer` takes out the checked answer of one."""
    asking = [step for step in steps if isinstance(step.question, kind)]
    if not asking:
        return
    asked = [step.question for step in asking if isinstance(step.question, kind)]
    start = time.perf_counter()
    failure: CriticError | None = None
    answers: Any = None
    try:
        answers = call(asking, asked)
    except CriticError as e:
        failure = e
    latency_ms = (time.perf_counter() - start) * 1e3
    for n, (step, question) in enumerate(zip(asking, asked, strict=True)):
        step.latency_ms = (step.latency_ms or 0.0) + latency_ms
        if failure is not None:
            step.fail(failure)
            continue
        try:
            one = answer(answers, n, question)
        except CriticResponseError as e:
            step.fail(e)
        else:
            step.answer(one)


def _of_shape(answers: object, count: int, what: str) -> FloatArray:
    array = np.asarray(answers, dtype=np.float32)
    if array.shape != (count,):
        raise CriticResponseError(f"Expected {what} of shape ({count},) from the critic, got {array.shape}.")
    return array


def _in_range(array: FloatArray, n: int, low: float, what: str) -> float:
    value = float(array[n])
    if not low <= value <= 1.0:
        raise CriticResponseError(
            f"Expected {what} in [{low:g}, 1] from the critic, got {value!r} at index {n} of {len(array)}."
        )
    return value
