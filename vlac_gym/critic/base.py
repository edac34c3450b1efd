"""The critic protocol: `Critic`, its privileged kind `PrivilegedCritic`, and the checks all critics share.

Critics see pictures and task texts. They are batch first, deterministic, and never change a frame.
"""

__all__ = [
    "Critic",
    "PrivilegedCritic",
    "check_frame",
    "check_frames",
    "check_same_length",
    "check_tasks",
    "frame_digest",
    "value_and_progress",
    "value_lists",
]

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.types import CriticInfo, FloatArray, Frame


@runtime_checkable
class Critic(Protocol):
    """Judges frames against a task text.

    Frames are uint8 (H, W, 3), RGB, upright; they are never modified, and frames of one call may
    differ in size. Same input gives the same output.
    """

    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> FloatArray:
        """Probability that the task is complete in each frame.

        Args:
            frames: N frames.
            tasks: N task texts, one per frame.

        Returns:
            float32 (N,), each in [0, 1].

        Raises:
            ConfigError: A frame or task is malformed, or the lengths differ.
            CriticError: No usable answer; see `vlac_gym.errors`.
        """
        ...

    def progress(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> FloatArray:
        """Signed progress of each pair; positive if `after` is closer to the goal.

        Args:
            before: N frames.
            after: N frames.
            tasks: N task texts.
            references: 2..11 frames of a successful episode in order, shared by all pairs.

        Returns:
            float32 (N,), each in [-1, 1].
        """
        ...

    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        """Accumulated completion over the frames of one episode, in order.

        Returns:
            float32 (T,) for T frames, each in [0, 1], the first 0; empty for no frames.
        """
        ...

    def describe(self) -> CriticInfo:
        """What this critic is; never fails and loads nothing."""
        ...

    def close(self) -> None:
        """Frees what the critic holds; safe to call twice."""
        ...


@runtime_checkable
class PrivilegedCritic(Critic, Protocol):
    """A critic that reads the simulator's signals beside each frame.

    Whoever drives the episode calls `begin_episode` at reset and `observe` for each frame before it is
    judged. It can't be served: pictures alone do not carry what it needs.
    """

    def begin_episode(self, env_index: int = 0) -> None:
        """Forgets the episode that environment `env_index` was in."""
        ...

    def observe(self, frame: Frame, info: Mapping[str, Any], env_index: int = 0) -> None:
        """Takes the simulator's signals that belong to `frame`.

        Args:
            frame: The frame that may be judged later.
            info: The env's own `info`: `success` (bool) and, if the env has it, `goal_progress`
                (float in [0, 1], 1 exactly at success).
            env_index: Which environment of a vector env.

        Raises:
            ConfigError: `info` has no `success`.
        """
        ...


def check_frame(frame: object, where: str = "frame") -> None:
    """Raises `ConfigError` unless `frame` is a uint8 (H, W, 3) array with H, W >= 1."""
    if not isinstance(frame, np.ndarray):
        raise ConfigError(
            f"Expected {where} as a uint8 (H, W, 3) array, got {type(frame).__name__}. "
            "Convert it with np.asarray."
        )
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise ConfigError(
            f"Expected {where} as uint8 (H, W, 3) with H, W >= 1, got {frame.dtype} {frame.shape}. "
            "Use RGB, channels last, 0..255."
        )


def check_frames(frames: Sequence[Frame], where: str = "frames") -> None:
    """Raises `ConfigError`, naming the index, unless every frame is uint8 (H, W, 3)."""
    for i, frame in enumerate(frames):
        check_frame(frame, f"{where}[{i}]")


def check_tasks(tasks: Sequence[str]) -> None:
    """Raises `ConfigError` unless `tasks` is a sequence of non-empty texts (not one text)."""
    if isinstance(tasks, str):
        raise ConfigError(f"Expected tasks as a sequence of texts, one per frame, got the text {tasks!r}.")
    for i, task in enumerate(tasks):
        if not isinstance(task, str) or not task.strip():
            raise ConfigError(f"Expected tasks[{i}] as a non-empty text, got {task!r}.")


def check_same_length(**sequences: Sequence[object]) -> None:
    """Raises `ConfigError` with all lengths unless they agree."""
    lengths = {name: len(items) for name, items in sequences.items()}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ConfigError(f"Expected the same number of each, got {got}.")


def frame_digest(frame: Frame) -> bytes:
    """BLAKE2b-128 of a frame's dtype, shape and bytes: equal digests mean equal pictures."""
    head = f"{frame.dtype.str}{frame.shape}".encode()
    return hashlib.blake2b(np.ascontiguousarray(frame).data, digest_size=16, key=head[:64]).digest()


def value_lists(
    critic: Critic,
    episodes: Sequence[Sequence[Frame]],
    tasks: Sequence[str],
    references: Sequence[Frame] | None = None,
) -> list[FloatArray]:
    """The value lists of several episodes, in one call where the critic can do that.

    A critic may have a method `values(episodes, tasks, references=None) -> list[float32 (T_i,)]`; for one
    that has none, `value` is called for each episode.
    """
    batched = getattr(critic, "values", None)
    if batched is not None:
        lists: list[FloatArray] = batched(episodes, tasks, references=references)
        return lists
    return [
        critic.value(frames, task, references=references)
        for frames, task in zip(episodes, tasks, strict=True)
    ]


def value_and_progress(
    critic: Critic, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
) -> tuple[FloatArray, FloatArray]:
    """An episode's value list and the progress of its neighbouring frames, in one pass where the critic can do that.

    A critic may have a method `value_and_progress(frames, task, references)`, whose values are those of `value`;
    one that has none is asked for both.

    Args:
        critic: Who is asked.
        frames: T >= 1 frames of one episode, in order.
        task: Instruction text.
        references: As of `Critic.value`.

    Returns:
        float32 (T,) in [0, 1], and float32 (T - 1,) in [-1, 1].
    """
    both = getattr(critic, "value_and_progress", None)
    if both is not None:
        answers: tuple[FloatArray, FloatArray] = both(frames, task, references)
        return answers
    values = critic.value(frames, task, references)
    pairs = len(frames) - 1
    return values, critic.progress(frames[:-1], frames[1:], [task] * pairs, references)
