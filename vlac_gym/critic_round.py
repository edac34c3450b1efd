"""One round of questions to the critic for any number of episodes: `ask_round`, `try_round`.

However many episodes there are, a round is at most one `success_prob`, one `progress` and one value call.
"""

__all__ = ["ask_round", "checked_answers", "try_round"]

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from vlac_gym.critic.base import Critic, value_lists
from vlac_gym.episode_judge import EpisodeJudge
from vlac_gym.errors import CriticError, CriticResponseError
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
    for error in try_round(critic, judges, references).values():
        raise error


def try_round(
    critic: Critic, judges: Sequence[EpisodeJudge], references: Sequence[Frame] | None = None
) -> dict[int, CriticError]:
    """`ask_round` that returns errors: a call that fails is the error of all it asked about, a bad answer of one.

    Returns:
        Errors by position in `judges`; a judge with an error was given no answer and is asked no further.
    """
    errors: dict[int, CriticError] = {}
    _ask_done(critic, judges, errors)
    _ask_progress(critic, judges, references, errors)
    _ask_values(critic, judges, references, errors)
    return errors


def checked_answers(answers: object, count: int, low: float, what: str) -> FloatArray:
    """Returns the answers as float32 (count,), all in [low, 1].

    Raises:
        CriticResponseError: Wrong shape, not finite, or out of range.
    """
    array = _of_shape(answers, count, what)
    bad = ~((array >= low) & (array <= 1.0))
    if bad.any():
        raise _range_error(array, int(np.argmax(bad)), low, what)
    return array


def _ask_done(critic: Critic, judges: Sequence[EpisodeJudge], errors: dict[int, CriticError]) -> None:
    asking = {i: judge for i, judge in enumerate(judges) if judge.asks_done()}
    if not asking:
        return
    frames, tasks = [judge.frame for judge in asking.values()], [judge.task for judge in asking.values()]
    try:
        answers = _timed(list(asking.values()), lambda: critic.success_prob(frames, tasks))
        probs = _of_shape(answers, len(asking), "success_prob")
    except CriticError as e:
        errors |= dict.fromkeys(asking, e)
        return
    for n, (i, judge) in enumerate(asking.items()):
        if 0.0 <= probs[n] <= 1.0:
            judge.take_done(float(probs[n]))
        else:
            errors[i] = _range_error(probs, n, 0.0, "success_prob")


def _ask_progress(
    critic: Critic,
    judges: Sequence[EpisodeJudge],
    references: Sequence[Frame] | None,
    errors: dict[int, CriticError],
) -> None:
    pairs = {
        i: pair for i, judge in enumerate(judges) if i not in errors and (pair := judge.pair()) is not None
    }
    if not pairs:
        return
    before, after = [pair[0] for pair in pairs.values()], [pair[1] for pair in pairs.values()]
    asking = [judges[i] for i in pairs]
    tasks = [judge.task for judge in asking]
    try:
        answers = _timed(asking, lambda: critic.progress(before, after, tasks, references=references))
        progresses = _of_shape(answers, len(pairs), "progress")
    except CriticError as e:
        errors |= dict.fromkeys(pairs, e)
        return
    for n, i in enumerate(pairs):
        if -1.0 <= progresses[n] <= 1.0:
            judges[i].take_progress(float(progresses[n]))
        else:
            errors[i] = _range_error(progresses, n, -1.0, "progress")


def _ask_values(
    critic: Critic,
    judges: Sequence[EpisodeJudge],
    references: Sequence[Frame] | None,
    errors: dict[int, CriticError],
) -> None:
    episodes = {
        i: frames
        for i, judge in enumerate(judges)
        if i not in errors and (frames := judge.value_frames()) is not None
    }
    if not episodes:
        return
    asking, frame_lists = [judges[i] for i in episodes], list(episodes.values())
    tasks = [judge.task for judge in asking]
    try:
        answers = _timed(asking, lambda: value_lists(critic, frame_lists, tasks, references))
        if len(answers) != len(asking):
            raise CriticResponseError(
                f"Expected {len(asking)} value lists from the critic, got {len(answers)}."
            )
    except CriticError as e:
        errors |= dict.fromkeys(episodes, e)
        return
    for values, (i, frames) in zip(answers, episodes.items(), strict=True):
        try:
            judges[i].take_values(checked_answers(values, len(frames), 0.0, "value").tolist())
        except CriticResponseError as e:
            errors[i] = e


def _of_shape(answers: object, count: int, what: str) -> FloatArray:
    array = np.asarray(answers, dtype=np.float32)
    if array.shape != (count,):
        raise CriticResponseError(f"Expected {what} of shape ({count},) from the critic, got {array.shape}.")
    return array


def _range_error(array: FloatArray, i: int, low: float, what: str) -> CriticResponseError:
    return CriticResponseError(
        f"Expected {what} in [{low:g}, 1] from the critic, got {float(array[i])!r} "
        f"at index {i} of {len(array)}."
    )


def _timed(judges: Sequence[EpisodeJudge], call: Callable[[], Answer]) -> Answer:
    start = time.perf_counter()
    try:
        return call()
    finally:
        latency_ms = (time.perf_counter() - start) * 1e3
        for judge in judges:
            judge.calls += 1
            judge.latency_ms += latency_ms
