"""What a critic would have said of an evaluation's episodes; decides nothing: `PostHocCritic`, `check_post_hoc`."""

__all__ = ["PostHocCritic", "check_post_hoc"]

from collections.abc import Sequence
from typing import Any

from vlac_gym.critic.answers import checked_answers
from vlac_gym.critic.base import Critic
from vlac_gym.critic.signals import EpisodeSignals
from vlac_gym.errors import ConfigError, CriticError
from vlac_gym.evaluation.playing import Footage
from vlac_gym.types import Frame


def check_post_hoc(done_threshold: float, interval_steps: int) -> None:
    """Raises `ConfigError` unless the threshold is in [0, 1] and the interval 1 or more."""
    if not 0 <= done_threshold <= 1 or interval_steps < 1:
        raise ConfigError(
            f"Expected a done threshold in [0, 1] and an interval of 1 step or more, got {done_threshold} and "
            f"{interval_steps}."
        )


class PostHocCritic:
    """Asks a critic after each episode whether the task was done in its frames.

    `CriticFailurePolicy` is not for it: that says what becomes of an episode, and of a run, which lives by its critic.
    Here the simulator's verdict stands without one, so that any `CriticError` leaves a blank in the record and neither
    cuts an episode nor, by a breaker, stops the run. A critic server's own attempts come before that, as everywhere.

    Args:
        critic: Who is asked.
        done_threshold: From this success_prob on, [0, 1], a frame counts as done.
        interval_steps: Least env steps between two frames that it is asked about; the last frame is always one.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(self, critic: Critic, *, done_threshold: float, interval_steps: int) -> None:
        check_post_hoc(done_threshold, interval_steps)
        self._critic = critic
        self._threshold = done_threshold
        self._interval = interval_steps
        self._is_privileged = critic.describe().is_privileged

    def judge(self, footage: Footage, task: str, number: int) -> dict[str, Any]:
        """What the critic says of an episode.

        Args:
            footage: Of the episode.
            task: The instruction.
            number: What a privileged critic knows the episode by.

        Returns:
            `frames` (asked about), `success_prob_last`, `success_prob_max` (both [0, 1]), `done_step` (of the first
            frame that counts as done, or None) and `error` (why there is no answer, or None).
        """
        chosen = self._chosen(footage.frame_steps)
        frames: list[Frame] = [footage.frames[i] for i in chosen]
        if self._is_privileged:
            signals = EpisodeSignals(episode=number)
            frames = [signals.attach(footage.frames[i], footage.signals[i]) for i in chosen]
        try:
            answers = self._critic.success_prob(frames, [task] * len(frames))
            probs = checked_answers(answers, len(frames), 0.0, "success_prob").tolist()
        except CriticError as e:
            return _said(len(frames), error=str(e))
        done = [i for i, prob in zip(chosen, probs) if prob >= self._threshold]
        step = footage.frame_steps[done[0]] if done else None
        return _said(len(frames), last=probs[-1], most=max(probs), done_step=step)

    def _chosen(self, steps: Sequence[int]) -> list[int]:
        chosen: list[int] = []
        for i, step in enumerate(steps):
            is_far = not chosen or step - steps[chosen[-1]] >= self._interval
            if is_far or i == len(steps) - 1:
                chosen.append(i)
        return chosen


def _said(
    frames: int,
    *,
    last: float | None = None,
    most: float | None = None,
    done_step: int | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    return {
        "frames": frames,
        "success_prob_last": last,
        "success_prob_max": most,
        "done_step": done_step,
        "error": error,
    }
