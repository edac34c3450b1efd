"""The critic protocol: `Critic`, and the checks all critics share.

Critics see pictures and task texts. They are batch first, deterministic, and never change a frame. Privileged ones read
the simulator beside the picture: `vlac_gym.critic.signals`.
"""

__all__ = [
    "Critic",
    "check_frame",
    "check_frames",
    "check_same_length",
    "check_tasks",
    "described",
    "frame_digest",
    "value_and_progress",
    "value_lists",
]

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from vlac_gym.errors import ConfigError
from vlac_gym.frames.checks import check_frame, check_frames, frame_digest
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
        """What this critic is; never fails and loads nothing.

        With `is_privileged`, frames bring the simulator's signals along; see `vlac_gym.critic.signals`.
        """
        ...

    def close(self) -> None:
        """Frees what the critic holds; safe to call twice."""
        ...


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


def described(critic: Critic) -> CriticInfo:
    """What a critic is; a remote one is asked first, for it knows little before its server has answered.

    Raises:
        CriticError: The server does not answer.
    """
    ask_server = getattr(critic, "server_info", None)
    if ask_server is not None:
        ask_server()
    return critic.describe()


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
