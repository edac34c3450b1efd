"""What a critic says of a recorded episode: `EpisodeScore`, `score_episode`. numpy only.

No simulator is involved: this is how to look at a critic, or to rank demonstrations, from pictures alone.
"""

__all__ = ["EpisodeScore", "check_score_options", "score_episode"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlac_gym.checks import check_unit
from vlac_gym.critic.base import Critic, check_frames
from vlac_gym.critic.knowledge import OnMismatch, find_mismatches, settle_mismatches
from vlac_gym.critic.wrapper import adapted
from vlac_gym.errors import ConfigError
from vlac_gym.metrics.progress import negative_rate, value_order_correlation
from vlac_gym.types import FloatArray, Frame

_FRAMES_PER_CALL = 64
"""Frames of one `success_prob` call: keeps requests to a server small and the engine's batches full."""


@dataclass(frozen=True, eq=False)
class EpisodeScore:
    """Answers about one episode; frame numbers count from 0.

    Attributes:
        task: Instruction text.
        num_frames: Frames of the episode.
        check_frames: Frame numbers at which `success_prob` was asked, the last frame included.
        success_prob: float32, [0, 1], one per checked frame.
        value_frames: Frame numbers that the value list judges, the first and the last included.
        progress: float32, [-1, 1], one per pair of neighbouring value frames; a critic that heeds more than pairs may
            give values that it does not add up to.
        values: float32, [0, 1], one per value frame, the first 0: `Critic.value`, which training pays.
        done_threshold: `success_prob` that counts as done.
    """

    task: str
    num_frames: int
    check_frames: tuple[int, ...]
    success_prob: FloatArray
    value_frames: tuple[int, ...]
    progress: FloatArray
    values: FloatArray
    done_threshold: float

    @property
    def value_order_correlation(self) -> float | None:
        """Rank correlation of values and time, [-1, 1]; None if all values are equal or there is one only."""
        return value_order_correlation(self.values)

    @property
    def negative_rate(self) -> float | None:
        """Share of pairs judged as regress, [0, 1]; None without pairs."""
        return negative_rate(self.progress)

    @property
    def first_done_frame(self) -> int | None:
        """First checked frame with `success_prob >= done_threshold`."""
        # In float32, as the training rule compares: 0.9 in float32 is below 0.9 in float64.
        threshold = np.float32(self.done_threshold)
        return next((at for at, prob in zip(self.check_frames, self.success_prob) if prob >= threshold), None)

    def as_json(self) -> dict[str, Any]:
        """JSON-serialisable numbers; undefined metrics are None."""
        pairs = zip(self.value_frames, self.value_frames[1:], self.progress.tolist())
        return {
            "task": self.task,
            "num_frames": self.num_frames,
            "done_threshold": self.done_threshold,
            "first_done_frame": self.first_done_frame,
            "final_success_prob": float(self.success_prob[-1]),
            "final_value": float(self.values[-1]),
            "value_order_correlation": self.value_order_correlation,
            "negative_rate": self.negative_rate,
            "success_prob": [
                {"frame": at, "success_prob": prob}
                for at, prob in zip(self.check_frames, self.success_prob.tolist())
            ],
            "values": [
                {"frame": at, "value": value} for at, value in zip(self.value_frames, self.values.tolist())
            ],
            "progress": [{"before": i, "after": j, "progress": change} for i, j, change in pairs],
        }


def score_episode(
    critic: Critic,
    frames: Sequence[Frame],
    task: str,
    *,
    references: Sequence[Frame] | None = None,
    value_stride: int = 5,
    check_stride: int = 1,
    done_threshold: float = 0.9,
    on_critic_mismatch: OnMismatch = "raise",
    on_progress: Callable[[int, int], None] | None = None,
) -> EpisodeScore:
    """Asks a critic about every frame and every pair of an episode.

    Args:
        critic: Any critic that goes by pictures alone.
        frames: One or more frames in order, uint8 (H, W, 3).
        task: Instruction text.
        references: 2 to 11 frames of a successful episode; default: the critic's own, if it has some.
        value_stride: Distance of the frames of a pair; the last pair may be closer. Default 5, as in training.
        check_stride: `success_prob` is asked at every so many frames, and at the last.
        done_threshold: What counts as done, [0, 1]. Default 0.9, as in training.
        on_critic_mismatch: `raise` refuses a critic that does not know the task, or references where there are some
            (`CriticInfo.knows`); `warn` logs it and asks.
        on_progress: Called with how many questions are answered, and how many there are.

    Raises:
        ConfigError: The critic reads the simulator or does not know the task, there are no frames, or a number is out
            of range.
        CriticError: No usable answer.
    """
    asked = adapted(critic)
    info = asked.identify()
    if info.is_privileged:
        raise ConfigError(
            f"Expected a critic that goes by pictures, got {info.name!r}, which reads the simulator; "
            "a recording has none."
        )
    if not len(frames):
        raise ConfigError("Expected one or more frames to score, got none.")
    check_score_options(value_stride=value_stride, check_stride=check_stride, done_threshold=done_threshold)
    check_frames(frames)
    inputs = () if references is None else ("references",)
    settle_mismatches(info, find_mismatches(info, task=task, inputs=inputs), on_critic_mismatch)
    checked, judged = _every(len(frames), check_stride), _every(len(frames), value_stride)
    total = len(checked) + len(judged)
    tell = on_progress or (lambda done, total: None)
    tell(0, total)
    values, progress = asked.value_and_progress([frames[i] for i in judged], task, references)
    success_prob = _success_prob(
        critic, [frames[i] for i in checked], task, lambda done: tell(len(judged) + done, total)
    )
    return EpisodeScore(
        task=task,
        num_frames=len(frames),
        check_frames=checked,
        success_prob=success_prob,
        value_frames=judged,
        progress=progress,
        values=values,
        done_threshold=done_threshold,
    )


def check_score_options(*, value_stride: int, check_stride: int, done_threshold: float) -> None:
    """Raises `ConfigError` unless these options of `score_episode` are in range."""
    for name, stride in (("value_stride", value_stride), ("check_stride", check_stride)):
        if stride < 1:
            raise ConfigError(f"Expected {name} >= 1, got {stride!r}.")
    check_unit("done_threshold", done_threshold)


def _every(count: int, stride: int) -> tuple[int, ...]:
    """Numbers 0, stride, … below `count`, and always the last."""
    numbers = list(range(0, count, stride))
    return tuple(numbers if numbers[-1] == count - 1 else [*numbers, count - 1])


def _success_prob(
    critic: Critic, frames: list[Frame], task: str, on_done: Callable[[int], None]
) -> FloatArray:
    parts = []
    for start in range(0, len(frames), _FRAMES_PER_CALL):
        part = frames[start : start + _FRAMES_PER_CALL]
        parts.append(critic.success_prob(part, [task] * len(part)))
        on_done(start + len(part))
    return np.concatenate(parts)
