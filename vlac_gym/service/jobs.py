"""Questions in work and how a batch of them is put to the critic: `Job`, `JobResult`, `Slice`, `ask_critic`."""

__all__ = ["NO_RESULT", "Job", "JobResult", "Slice", "ask_critic"]

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from vlac_gym.critic.base import BaseCritic
from vlac_gym.errors import CriticResponseError
from vlac_gym.service.protocol import Operation
from vlac_gym.service.wire_errors import ServiceError
from vlac_gym.types import FloatArray, Frame

_RANGES: dict[Operation, tuple[float, float]] = {
    "success_prob": (0.0, 1.0),
    "progress": (-1.0, 1.0),
    "value": (0.0, 1.0),
}


@dataclass(eq=False)
class Job:
    """A question that waits: frames or pairs of one request, or one of its episodes.

    Attributes:
        client: Who asks; clients share the critic equally.
        operation: Which question.
        frames: Frames to judge (before, for `progress`).
        after: Frames after, for `progress`.
        tasks: One text each; one text for the episode, for `value`.
        references: Frames of a successful episode, or None.
        references_key: Equal keys mean equal references; only such jobs share a batch.
        deadline: Time on the event loop's clock, in seconds, after which the answer is of no use.
        queued_at: Time on that clock at which it was opened.
    """

    client: str
    operation: Operation
    frames: Sequence[Frame]
    tasks: Sequence[str]
    deadline: float
    after: Sequence[Frame] = ()
    references: Sequence[Frame] | None = None
    references_key: Hashable = None
    queued_at: float = 0.0
    _future: "asyncio.Future[JobResult] | None" = None
    _values: FloatArray = field(default_factory=lambda: np.empty(0, np.float32))
    _taken: int = 0
    _answered: int = 0
    _queue_s: float | None = None
    _model_s: float = 0.0
    _batch: int = 0

    @property
    def items(self) -> int:
        """How many frames or pairs it asks about."""
        return len(self.frames)

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self.frames) - self._taken

    @property
    def batch_key(self) -> Hashable:
        """Jobs with equal keys may share a batch."""
        return (self.operation, self.references_key)

    def open(self, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[JobResult]":
        """Starts the wait; the future gets the result or a `ServiceError`."""
        self.queued_at = loop.time()
        self._values = np.empty(self.items, np.float32)
        self._future = loop.create_future()
        return self._future

    def take(self, count: int) -> "Slice":
        """Hands the next `count` items to a batch."""
        piece = Slice(self, self._taken, self._taken + count)
        self._taken += count
        return piece

    def accept(
        self, piece: "Slice", values: FloatArray, started_at: float, model_s: float, batch: int
    ) -> None:
        """Takes the answers of one piece; the last one completes the job."""
        if self._queue_s is None:
            self._queue_s = started_at - self.queued_at
        self._values[piece.start : piece.stop] = values
        self._answered += piece.stop - piece.start
        self._model_s += model_s
        self._batch = max(self._batch, batch)
        if self._answered == self.items and self._future is not None and not self._future.done():
            self._future.set_result(JobResult(self._values, self._queue_s, self._model_s, self._batch))

    def fail(self, error: ServiceError) -> None:
        """Ends the wait with an error, unless it has ended."""
        if self._future is not None and not self._future.done():
            self._future.set_exception(error)


@dataclass(frozen=True)
class JobResult:
    """Numbers for every item of a job, the wait and the time in the model, and its largest batch."""

    values: FloatArray
    queue_s: float
    model_s: float
    batch: int


NO_RESULT = JobResult(np.empty(0, np.float32), 0.0, 0.0, 0)
"""Of a job without items, which nobody needs to ask."""


@dataclass(frozen=True)
class Slice:
    """Items `start` to `stop` of one job."""

    job: Job
    start: int
    stop: int

    @property
    def items(self) -> int:
        """How many."""
        return self.stop - self.start


def ask_critic(critic: BaseCritic, batch: Sequence[Slice]) -> FloatArray:
    """Asks the critic for one batch: float32 (N,) for N items, in order.

    Raises:
        CriticResponseError: The critic's numbers are too few, too many, NaN or out of range.
        Exception: Whatever the critic raises.
    """
    first = batch[0].job
    frames = [frame for piece in batch for frame in piece.job.frames[piece.start : piece.stop]]
    if first.operation == "value":
        episodes, tasks = [piece.job.frames for piece in batch], [piece.job.tasks[0] for piece in batch]
        lists = critic.values(episodes, tasks, first.references)
        if [len(values) for values in lists] != [len(episode) for episode in episodes]:
            raise CriticResponseError(
                f"Expected value lists of {[len(episode) for episode in episodes]} numbers of the critic, "
                f"got {[len(values) for values in lists]}."
            )
        values = np.concatenate(lists)
    else:
        tasks = [task for piece in batch for task in piece.job.tasks[piece.start : piece.stop]]
        if first.operation == "success_prob":
            values = critic.success_prob(frames, tasks)
        else:
            after = [frame for piece in batch for frame in piece.job.after[piece.start : piece.stop]]
            values = critic.progress(frames, after, tasks, first.references)
    return _checked(values, len(frames), first.operation)


def _checked(values: FloatArray, count: int, operation: Operation) -> FloatArray:
    low, high = _RANGES[operation]
    values = np.asarray(values, dtype=np.float32)
    if values.shape != (count,) or not np.all((values >= low) & (values <= high)):
        raise CriticResponseError(
            f"Expected {operation} of the critic as {count} numbers in [{low:g}, {high:g}], "
            f"got {values.shape} {values[:8] if values.ndim else values}."
        )
    return values
