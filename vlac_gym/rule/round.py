"""One round of questions to the critic for any number of episodes: `OpenStep`, `ask_round`, `ask_once`.

However many episodes there are, a round is at most one `success_prob`, one `progress` and one value call.
"""

__all__ = ["OpenStep", "ask_once", "ask_round"]

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from vlac_gym.critic.answers import checked_answers, in_range, of_shape
from vlac_gym.critic.base import BaseCritic
from vlac_gym.errors import CriticError, CriticResponseError
from vlac_gym.rule.episode import AskDone, AskProgress, AskValues, Question, Step, Verdict
from vlac_gym.types import FloatArray, Frame

Asked = TypeVar("Asked", AskDone, AskProgress, AskValues)
Answers = TypeVar("Answers")


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
        self._go_on(step.send, None)

    @property
    def verdict(self) -> Verdict:
        """The verdict of a step that has no question left."""
        assert self._verdict is not None
        return self._verdict

    @property
    def is_last(self) -> bool:
        """Whether the verdict is there, and ends the episode."""
        verdict = self._verdict
        return verdict is not None and (verdict.terminated or verdict.truncated)

    def answer(self, answer: Any) -> None:
        """Takes the answer to `question`, in the form that its class says."""
        self._go_on(self._step.send, answer)

    def fail(self, error: CriticError) -> None:
        """Takes that there is no usable answer to `question`."""
        self.error = error
        self._go_on(self._step.throw, error)

    def _go_on(self, resume: Callable[[Any], Question], sent: Any) -> None:
        try:
            self.question = resume(sent)
        except StopIteration as stop:
            self.question, self._verdict = None, stop.value


def ask_round(
    critic: BaseCritic, steps: Sequence[OpenStep], references: Sequence[Frame] | None = None
) -> None:
    """Asks all that the steps want to know, whereupon each has its verdict.

    A call that fails is the error of every step it asked about, a bad answer of its own step alone.

    Args:
        critic: Who is asked.
        steps: Steps of different episodes, with or without a question.
        references: Frames of a successful episode, passed to `progress` and `value`.
    """
    if done := _asking(steps, AskDone):
        _ask_done(critic, done)
        steps = [step for step in steps if step.question is not None]
        if not steps:
            return
    if progress := _asking(steps, AskProgress):
        _ask_progress(critic, progress, references)
    if values := _asking(steps, AskValues):
        _ask_values(critic, values, references)


def ask_once(
    critic: BaseCritic, steps: Sequence[OpenStep], references: Sequence[Frame] | None = None
) -> None:
    """One call to the critic, about steps whose questions are of one kind.

    Steps may have a further question afterwards; else as `ask_round`.
    """
    if done := _asking(steps, AskDone):
        _ask_done(critic, done)
    elif progress := _asking(steps, AskProgress):
        _ask_progress(critic, progress, references)
    elif values := _asking(steps, AskValues):
        _ask_values(critic, values, references)


def _asking(steps: Sequence[OpenStep], kind: type[Asked]) -> list[tuple[OpenStep, Asked]]:
    return [(step, question) for step in steps if isinstance(question := step.question, kind)]


def _ask_done(critic: BaseCritic, asking: Sequence[tuple[OpenStep, AskDone]]) -> None:
    frames, tasks = [question.frame for _, question in asking], [step.task for step, _ in asking]
    _ask(
        asking,
        lambda: of_shape(critic.success_prob(frames, tasks), len(frames), "success_prob"),
        lambda probs, n: in_range(probs, n, 0.0, "success_prob"),
    )


def _ask_progress(
    critic: BaseCritic, asking: Sequence[tuple[OpenStep, AskProgress]], references: Sequence[Frame] | None
) -> None:
    before, after = [question.before for _, question in asking], [question.after for _, question in asking]
    tasks = [step.task for step, _ in asking]
    _ask(
        asking,
        lambda: of_shape(
            critic.progress(before, after, tasks, references=references), len(after), "progress"
        ),
        lambda progresses, n: in_range(progresses, n, -1.0, "progress"),
    )


def _ask_values(
    critic: BaseCritic, asking: Sequence[tuple[OpenStep, AskValues]], references: Sequence[Frame] | None
) -> None:
    episodes, tasks = [question.frames for _, question in asking], [step.task for step, _ in asking]

    def call() -> list[FloatArray]:
        lists = critic.values(episodes, tasks, references)
        if len(lists) != len(episodes):
            raise CriticResponseError(
                f"Expected {len(episodes)} value lists from the critic, got {len(lists)}."
            )
        return lists

    _ask(
        asking,
        call,
        lambda lists, n: checked_answers(lists[n], len(episodes[n]), 0.0, "value").tolist(),
    )


def _ask(
    asking: Sequence[tuple[OpenStep, Any]],
    call: Callable[[], Answers],
    checked: Callable[[Answers, int], Any],
) -> None:
    """Makes one call for all these steps; `checked` takes out the answer to the n-th."""
    start = time.perf_counter()
    try:
        answers = call()
    except CriticError as e:
        for step, _ in asking:
            step.fail(e)
        return
    finally:
        latency_ms = (time.perf_counter() - start) * 1e3
        for step, _ in asking:
            step.latency_ms = (step.latency_ms or 0.0) + latency_ms
    for n, (step, _) in enumerate(asking):
        try:
            answer = checked(answers, n)
        except CriticResponseError as e:
            step.fail(e)
        else:
            step.answer(answer)
