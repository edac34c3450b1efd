"""Questions of many clients to one critic, in batches: `Batcher`, `Job`, `JobResult`.

One thread owns the critic; the event loop composes batches for it. A batch mixes clients and requests of
one operation (`value` goes one episode at a time: its numbers depend on each other). Within a batch every
client gets an equal share, and the client served first moves to the end of the line.
"""

__all__ = ["Batcher", "BatcherState", "Job", "JobResult"]

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

import numpy as np

from vlac_gym.critic.base import Critic
from vlac_gym.errors import ConfigError, CriticResponseError
from vlac_gym.service.metrics import ServiceMetrics
from vlac_gym.service.protocol import Operation
from vlac_gym.service.wire_errors import ServiceError, classify
from vlac_gym.types import FloatArray, Frame

logger = logging.getLogger(__name__)

BatcherState = Literal["loading", "awake", "asleep", "closed"]

_T = TypeVar("_T")

_RANGES: dict[Operation, tuple[float, float]] = {
    "success_prob": (0.0, 1.0),
    "progress": (-1.0, 1.0),
    "value": (0.0, 1.0),
}


@dataclass(eq=False)
class Job:
    """One request's question.

    Attributes:
        client: Who asks; clients share the critic equally.
        operation: Which question.
        frames: Frames to judge (before, for `progress`).
        after: Frames after, for `progress`.
        tasks: One text each; one text for `value`.
        references: Frames of a successful episode, or None.
        references_key: Equal keys mean equal references; only such jobs share a batch.
        deadline: Time on the event loop's clock, in seconds, after which the answer is of no use.
    """

    client: str
    operation: Operation
    frames: Sequence[Frame]
    tasks: Sequence[str]
    deadline: float
    after: Sequence[Frame] = ()
    references: Sequence[Frame] | None = None
    references_key: Hashable = None
    _values: FloatArray = field(init=False)
    _future: "asyncio.Future[JobResult]" = field(init=False)
    _queued_at: float = field(init=False)
    _started_at: float | None = field(init=False, default=None)
    _taken: int = field(init=False, default=0)
    _answered: int = field(init=False, default=0)
    _model_s: float = field(init=False, default=0.0)
    _batch: int = field(init=False, default=0)

    @property
    def items(self) -> int:
        """How many frames or pairs it asks about."""
        return len(self.frames)

    @property
    def batch_key(self) -> Hashable:
        """Jobs with equal keys may share a batch."""
        return (self.operation, self.references_key)


@dataclass(frozen=True)
class JobResult:
    """Numbers for every item of a job, the wait and the time in the model, and its largest batch."""

    values: FloatArray
    queue_s: float
    model_s: float
    batch: int


@dataclass(frozen=True)
class _Slice:
    job: Job
    start: int
    stop: int


class Batcher:
    """Feeds one critic from many clients.

    Args:
        critic: Called from one thread of its own, never from two at once.
        metrics: Takes batch sizes and times.
        max_batch: Items in one call of the critic; `value` is one episode whatever its length.
        max_wait_s: How long the first item of a batch waits for company.
        max_queue: Items that may wait, over all clients; one client may hold half of it.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(
        self,
        critic: Critic,
        metrics: ServiceMetrics,
        *,
        max_batch: int = 64,
        max_wait_s: float = 0.004,
        max_queue: int = 8192,
    ) -> None:
        if max_batch < 1 or max_queue < 1 or not max_wait_s >= 0:
            raise ConfigError(
                "Expected max_batch >= 1, max_queue >= 1 and max_wait_s >= 0, "
                f"got {max_batch}, {max_queue}, {max_wait_s}."
            )
        self.state: BatcherState = "loading"
        self._critic = critic
        self._metrics = metrics
        self._max_batch, self._max_wait_s, self._max_queue = max_batch, max_wait_s, max_queue
        self._lines: OrderedDict[str, deque[Job]] = OrderedDict()
        self._waiting = 0
        self._wakeup = asyncio.Event()
        self._model_lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="critic")
        self._loop_task: asyncio.Task[None] | None = None
        self._items_per_s = 100.0

    async def start(self, load: Callable[[Critic], None]) -> None:
        """Loads the critic on its thread and begins to answer.

        Raises:
            ServiceError: The critic could not be loaded; the batcher stays `loading`.
        """
        async with self._model_lock:
            await self._on_thread(partial(load, self._critic))
        self._set_state("awake")
        self._loop_task = asyncio.create_task(self._run(), name="batcher")

    async def close(self) -> None:
        """Refuses what still waits and frees the critic; safe to call twice."""
        if self.state == "closed":
            return
        self._set_state("closed")
        if self._loop_task is not None:
            self._loop_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop_task
        for line in self._lines.values():
            for job in line:
                _fail(job, self.unavailable())
        self._lines.clear()
        async with self._model_lock:
            await self._on_thread(self._critic.close)
        self._thread.shutdown(wait=False)

    async def sleep(self) -> bool:
        """Lets the critic free its accelerator's memory; questions wait. False if it has no such thing."""
        return await self._switch("sleep", "asleep")

    async def wake(self) -> bool:
        """Undoes `sleep`; if it fails, the critic stays asleep."""
        return await self._switch("wake", "awake")

    async def submit(self, job: Job) -> JobResult:
        """Waits for the answers to one job.

        Raises:
            ServiceError: The queue is full, the deadline passed, or the critic failed.
        """
        loop = asyncio.get_running_loop()
        self._admit(job)
        job._values = np.empty(job.items, np.float32)
        if not job.items:
            return JobResult(job._values, 0.0, 0.0, 0)
        job._future = loop.create_future()
        job._queued_at = loop.time()
        self._lines.setdefault(job.client, deque()).append(job)
        self._count(job.items)
        self._wakeup.set()
        try:
            async with asyncio.timeout_at(job.deadline):
                return await job._future
        except TimeoutError:
            raise self._too_late(job) from None
        finally:
            self._forget(job)

    def unavailable(self) -> ServiceError:
        """The refusal that fits the present state."""
        reason = {"loading": "loading", "asleep": "asleep"}.get(self.state, "shutting_down")
        return ServiceError(reason, f"The critic is {reason.replace('_', ' ')}.", retry_after_s=1.0)

    # Composing

    def _admit(self, job: Job) -> None:
        if self.state == "closed":
            raise self.unavailable()
        mine = sum(other.items - other._taken for other in self._lines.get(job.client, ()))
        # An empty queue takes any job: one larger than the bound could otherwise never be asked.
        if (self._waiting and self._waiting + job.items > self._max_queue) or (
            mine and mine + job.items > max(1, self._max_queue // 2)
        ):
            raise ServiceError(
                "queue_full",
                f"{self._waiting} items wait already ({mine} of this client); the bound is {self._max_queue}.",
                retry_after_s=min(30.0, max(0.1, self._waiting / self._items_per_s)),
            )

    def _compose(self) -> list[_Slice]:
        """Takes the next batch off the lines: the first client's question, filled up fairly by the others."""
        if not self._lines:
            return []
        leader = next(iter(self._lines))
        head = self._lines[leader][0]
        self._lines.move_to_end(leader)
        if head.operation == "value":
            return [self._take(head, head.items)]
        batch: list[_Slice] = []
        room = self._max_batch
        clients = [leader, *(client for client in self._lines if client != leader)]
        while room:
            ready = [c for c in clients if c in self._lines and self._lines[c][0].batch_key == head.batch_key]
            if not ready:
                break
            share = max(1, room // len(ready))
            for client in ready[:room]:
                job = self._lines[client][0]
                piece = self._take(job, min(share, job.items - job._taken, room))
                room -= piece.stop - piece.start
                batch.append(piece)
        return batch

    def _take(self, job: Job, count: int) -> _Slice:
        piece = _Slice(job, job._taken, job._taken + count)
        job._taken += count
        self._count(-count)
        if job._taken == job.items:
            line = self._lines[job.client]
            line.popleft()
            if not line:
                del self._lines[job.client]
        return piece

    def _forget(self, job: Job) -> None:
        """Takes a job that ended early off its line; finished ones are off it already."""
        line = self._lines.get(job.client)
        if line is not None and job in line:
            line.remove(job)
            self._count(job._taken - job.items)
            if not line:
                del self._lines[job.client]

    def _count(self, items: int) -> None:
        self._waiting += items
        self._metrics.queue_items.set(self._waiting)

    # Running

    async def _run(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            while self._lines and self.state == "awake":
                await self._gather()
                async with self._model_lock:
                    if self.state == "awake" and (batch := self._compose()):
                        await self._answer(batch)

    async def _gather(self) -> None:
        """Waits until a batch is full or its first item has waited long enough."""
        loop = asyncio.get_running_loop()
        if next(iter(self._lines.values()))[0].operation == "value":
            return
        oldest = min(line[0]._queued_at for line in self._lines.values())
        while self._waiting < self._max_batch and (left := oldest + self._max_wait_s - loop.time()) > 0:
            self._wakeup.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wakeup.wait()

    async def _answer(self, batch: Sequence[_Slice]) -> None:
        try:
            await self._ask(batch)
        except asyncio.CancelledError:
            for piece in batch:
                _fail(piece.job, self.unavailable())
            raise
        except ServiceError as error:
            jobs = list(dict.fromkeys(piece.job for piece in batch))
            if len(jobs) == 1:
                _fail(jobs[0], error)
                return
            # One bad frame, or a batch too large for memory, must not fail the other clients: ask one by one.
            for job in jobs:
                try:
                    await self._ask([piece for piece in batch if piece.job is job])
                except ServiceError as own_error:
                    _fail(job, own_error)

    async def _ask(self, batch: Sequence[_Slice]) -> None:
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        values = await self._on_thread(partial(_call, self._critic, batch))
        seconds = loop.time() - started_at
        operation, items = batch[0].job.operation, len(values)
        self._metrics.model_seconds.labels(operation).observe(seconds)
        self._metrics.batch_items.labels(operation).observe(items)
        self._items_per_s = 0.9 * self._items_per_s + 0.1 * items / max(seconds, 1e-6)
        offset = 0
        for piece in batch:
            job, count = piece.job, piece.stop - piece.start
            job._values[piece.start : piece.stop] = values[offset : offset + count]
            offset += count
            if job._started_at is None:
                job._started_at = started_at
                self._metrics.queue_seconds.observe(started_at - job._queued_at)
            job._answered += count
            job._model_s += seconds
            job._batch = max(job._batch, items)
            if job._answered == job.items and not job._future.done():
                waited = job._started_at - job._queued_at
                job._future.set_result(JobResult(job._values, waited, job._model_s, job._batch))

    async def _on_thread(self, call: Callable[[], _T]) -> _T:
        """Runs a call of the critic on its thread; whatever it raises becomes a `ServiceError`."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, call)
        await asyncio.wait([future])
        error = future.exception()
        if error is not None:
            logger.error("the critic raised", exc_info=error)
            raise classify(error) from error
        return future.result()

    async def _switch(self, method: str, state: BatcherState) -> bool:
        async with self._model_lock:
            if self.state not in ("awake", "asleep"):
                raise self.unavailable()
            call = getattr(self._critic, method, None)
            if self.state != state:
                if state == "asleep":
                    self._set_state(state)
                if call is not None:
                    await self._on_thread(call)
                self._set_state(state)
                self._wakeup.set()
            return call is not None

    def _set_state(self, state: BatcherState) -> None:
        self.state = state
        self._metrics.awake.set(state == "awake")

    def _too_late(self, job: Job) -> ServiceError:
        if self.state != "awake":
            return self.unavailable()
        return ServiceError(
            "deadline", f"No answer before the request's deadline; {self._waiting} items wait."
        )


def _fail(job: Job, error: ServiceError) -> None:
    if not job._future.done():
        job._future.set_exception(error)


def _call(critic: Critic, batch: Sequence[_Slice]) -> FloatArray:
    """Asks the critic for one batch, on the critic's thread."""
    first = batch[0].job
    frames = [frame for piece in batch for frame in piece.job.frames[piece.start : piece.stop]]
    if first.operation == "value":
        values = critic.value(frames, first.tasks[0], first.references)
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
