"""One round of questions to the critic for any number of episodes: `ask_round`.

However many episodes there are, a round is at most one `success_prob`, one `progress` and one value call.
"""

__all__ = ["ask_round", "checked_answers"]

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from vlac_gym.critic.base import Critic, value_lists
from vlac_gym.episode_judge import EpisodeJudge
from vlac_gym.errors import CriticResponseError
from vlac_gym.types import FloatArray, Frame

Answer = TypeVar("Answer")


def ask_round(
    critic: Critic, judges: Sequence[EpisodeJudge], references: Sequence[Frame] | None = None
) -> None:
    """Asks what the judges need for their current step and gives them the answers.

    Args:
        critic: Who is asked.
        judges: Running episodes that were advanced and hold their frame.
        references: Frames of a successful episode, passed to `progress` and `value`.

    Raises:
        CriticResponseError: An answer has the wrong length, is not finite or is out of its range.
        CriticError: As the critic raises it.
    """
    asking = [judge for judge in judges if judge.asks_done()]
    if asking:
        frames, tasks = [judge.frame for judge in asking], [judge.task for judge in asking]
        probs = _timed(asking, lambda: critic.success_prob(frames, tasks))
        for judge, prob in zip(asking, checked_answers(probs, len(asking), 0.0, "success_prob"), strict=True):
            judge.take_done(float(prob))
    _ask_progress(critic, judges, references)
    _ask_values(critic, judges, references)


def checked_answers(answers: object, count: int, low: float, what: str) -> FloatArray:
    """Returns the answers as float32 (count,), all in [low, 1].

    Raises:
        CriticResponseError: Wrong shape, not finite, or out of range.
    """
    array = np.asarray(answers, dtype=np.float32)
    if array.shape != (count,):
        raise CriticResponseError(f"Expected {what} of shape ({count},) from the critic, got {array.shape}.")
    bad = ~((array >= low) & (array <= 1.0))
    if bad.any():
        i = int(np.argmax(bad))
        raise CriticResponseError(
            f"Expected {what} in [{low:g}, 1] from the critic, got {float(array[i])!r} "
            f"at index {i} of {count}."
        )
    return array


def _ask_progress(critic: Critic, judges: Sequence[EpisodeJudge], references: Sequence[Frame] | None) -> None:
    asking = [(judge, pair) for judge in judges if (pair := judge.pair()) is not None]
    if not asking:
        return
    before = [pair[0] for _, pair in asking]
    after = [pair[1] for _, pair in asking]
    tasks = [judge.task for judge, _ in asking]
    answers = _timed(
        [judge for judge, _ in asking], lambda: critic.progress(before, after, tasks, references=references)
    )
    checked = checked_answers(answers, len(asking), -1.0, "progress")
    for (judge, _), progress in zip(asking, checked, strict=True):
        judge.take_progress(float(progress))


def _ask_values(critic: Critic, judges: Sequence[EpisodeJudge], references: Sequence[Frame] | None) -> None:
    asking = [(judge, frames) for judge in judges if (frames := judge.value_frames()) is not None]
    if not asking:
        return
    episodes, tasks = [frames for _, frames in asking], [judge.task for judge, _ in asking]
    answers = _timed([judge for judge, _ in asking], lambda: value_lists(critic, episodes, tasks, references))
    if len(answers) != len(asking):
        raise CriticResponseError(f"Expected {len(asking)} value lists from the critic, got {len(answers)}.")
    for (judge, frames), values in zip(asking, answers, strict=True):
        judge.take_values(checked_answers(values, len(frames), 0.0, "value").tolist())


def _timed(judges: Sequence[EpisodeJudge], call: Callable[[], Answer]) -> Answer:
    start = time.perf_counter()
    try:
        return call()
    finally:
        latency_ms = (time.perf_counter() - start) * 1e3
        for judge in judges:
            judge.calls += 1
            judge.latency_ms += latency_ms
