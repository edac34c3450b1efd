"""The critic protocol, `Critic`; `BaseCritic`, which declares what else a critic can do; the checks all critics share.

Critics see pictures and task texts. They are batch first, deterministic, and never change a frame. Privileged ones read
the simulator beside the picture: `vlac_gym.critic.signals`.
"""

__all__ = [
    "BaseCritic",
    "Critic",
    "check_frame",
    "check_frames",
    "check_same_length",
    "check_tasks",
    "frame_digest",
]

from abc import ABC, abstractmethod
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


class BaseCritic(ABC):
    """A critic that declares what it can do besides answering, so that nobody has to probe it.

    Subclasses give `success_prob`, `progress`, `value` and `describe`; all else has a neutral default. One that has the
    methods of `Critic` alone and inherits nothing is taken everywhere: `vlac_gym.critic.wrapper.adapted` completes it.

    Attributes:
        is_remote: Whether its model runs in a server.
        takes_device_frames: Whether it may be shown a `DeviceFrame`, whose pixels are on a device, in an array's place.
        takes_concurrent_calls: Whether several threads may ask it at once, and gain by that: a server's client, say,
            and no model in this process.
    """

    is_remote: bool = False
    takes_device_frames: bool = False
    takes_concurrent_calls: bool = False

    @property
    def can_sleep(self) -> bool:
        """Whether `sleep` and `wake` do something; False by default."""
        return False

    @property
    def retries(self) -> int:
        """Attempts after the first, over all questions in this process; 0 for a critic that makes none."""
        return 0

    @property
    def failovers(self) -> int:
        """How often another server or critic took over, in this process; 0 for one that has no other."""
        return 0

    @property
    def failbacks(self) -> int:
        """How often a critic that had been replaced came back, in this process; 0 for one that has no other."""
        return 0

    @abstractmethod
    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> FloatArray:
        """See `Critic.success_prob`."""

    @abstractmethod
    def progress(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> FloatArray:
        """See `Critic.progress`."""

    @abstractmethod
    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        """See `Critic.value`."""

    @abstractmethod
    def describe(self) -> CriticInfo:
        """See `Critic.describe`."""

    def identify(self, *, retry: bool = True) -> CriticInfo:
        """`describe`; a remote critic asks its server first, for it knows little before that has answered.

        Args:
            retry: False raises a lost connection at once.

        Raises:
            CriticError: The server does not answer.
        """
        return self.describe()

    def values(
        self,
        episodes: Sequence[Sequence[Frame]],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> list[FloatArray]:
        """The value lists of several episodes, float32 (T_i,) each; by default one `value` after the other."""
        return [
            self.value(frames, task, references=references)
            for frames, task in zip(episodes, tasks, strict=True)
        ]

    def value_and_progress(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """An episode's value list and the progress of its neighbouring frames; by default `value` and `progress`.

        Args:
            frames: T >= 1 frames of one episode, in order.
            task: Instruction text.
            references: As of `Critic.value`.

        Returns:
            float32 (T,) in [0, 1], and float32 (T - 1,) in [-1, 1].
        """
        values = self.value(frames, task, references)
        pairs = len(frames) - 1
        return values, self.progress(frames[:-1], frames[1:], [task] * pairs, references)

    def warm_up(self) -> None:  # noqa: B027 (most critics need none)
        """Prepares for questions; changes no answer. Does nothing by default."""

    def sleep(self) -> None:
        """Frees accelerator memory until `wake`.

        Raises:
            ConfigError: It can't: `can_sleep` is False.
        """
        raise self._sleepless("sleep")

    def wake(self) -> None:
        """Undoes `sleep`.

        Raises:
            ConfigError: It can't: `can_sleep` is False.
        """
        raise self._sleepless("wake")

    def gpu_memory_bytes(self) -> int | None:
        """GPU memory that its server or it holds, bytes; None, the default, where it can't tell."""
        return None

    def close(self) -> None:  # noqa: B027 (most critics hold nothing)
        """Frees what the critic holds; safe to call twice. Does nothing by default."""

    def _sleepless(self, method: str) -> ConfigError:
        return ConfigError(
            f"Expected a critic that can {method}, got {self.describe().name!r} ({type(self).__name__}), whose "
            "can_sleep is False. Ask can_sleep first, or close it."
        )


def check_tasks(tasks: Sequence[str]) -> None:
    """Raises `ConfigError` unless `tasks` is a sequence of non-empty texts (not one text)."""
    if isinstance(tasks, str):
        raise ConfigError(f"Expected tasks as a sequence of texts, one per frame, got the text {tasks!r}.")
    for i, task in enumerate(tasks):
        if not isinstance(task, str) or not task.strip():
            raise ConfigError(f"Expected tasks[{i}] as a non-empty text, got {task!r}.")


def check_same_length(**sequences: Sequence[object]) -> None:
    """Raises `ConfigError` with all lengths unless they agree."""
    if len(set(map(len, sequences.values()))) > 1:
        got = ", ".join(f"{name} {len(items)}" for name, items in sequences.items())
        raise ConfigError(f"Expected the same number of each, got {got}.")
