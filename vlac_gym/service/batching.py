"""Questions of many clients to one critic, in batches: `Batcher`.

One thread owns the critic; the event loop composes batches for it. A batch mixes clients and requests of
one operation; episodes of `value` stay whole, since their numbers depend on each other.
"""

__all__ = ["Batcher"]

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from vlac_gym.critic.base import BaseCritic
from vlac_gym.errors import ConfigError
from vlac_gym.service.fair_queue import FairQueue
from vlac_gym.service.jobs import NO_RESULT, Job, JobResult, Slice, ask_critic
from vlac_gym.service.metrics import ServiceMetrics
from vlac_gym.service.protocol import BatcherState
from vlac_gym.service.wire_errors import ServiceError, classify

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class Batcher:
    """Feeds one critic from many clients.

    The critic is made, called and closed on one thread of its own, never on two at once.

    Args:
        metrics: Takes batch sizes and times.
        max_batch: Items in one call of the critic; one episode may be longer.
        max_wait_s: How long the first item of a batch waits for company.
        max_queue: Items that may wait, over all clients; one client may hold half of it.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(
        self,
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
        self._critic: BaseCritic | None = None
        self._is_half_way = False  # between asleep and awake: the last `sleep` or `wake` failed
        self._metrics = metrics
        self._max_batch, self._max_wait_s = max_batch, max_wait_s
        self._queue = FairQueue(max_queue)
        self._news = asyncio.Event()
        self._model_lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="critic")
        self._runner: asyncio.Task[None] | None = None
        self._items_per_s = 100.0

    @property
    def is_running(self) -> bool:
        """True while questions that come are answered, now or after `wake`."""
        return self._runner is not None and not self._runner.done()

    async def start(self, make: Callable[[], BaseCritic]) -> None:
        """Makes the critic on its thread and begins to answer; questions may come before.

        Raises:
            Exception: Whatever `make` raised; the batcher stays `loading`.
        """
        async with self._model_lock:
            self._critic = await self._on_thread(make)
        if self.state == "loading":
            self._set_state("awake")
            self._news.set()
            self._runner = asyncio.create_task(self._run(), name="batcher")

    async def close(self) -> None:
        """Refuses what still waits and frees the critic; safe to call twice."""
        if self.state == "closed":
            return
        self._set_state("closed")
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        for job in self._queue.drain():
            job.fail(self.unavailable())
        async with self._model_lock:
            if self._critic is not None:
                await self._on_thread(self._critic.close)
        self._thread.shutdown(wait=False)

    async def sleep(self) -> bool:
        """Lets the critic free its accelerator's memory; questions wait. False if it has no such thing.

        If it fails, the critic counts as asleep, and the next call of this or of `wake` tries again.
        """
        return await self._switch("sleep", "asleep")

    async def wake(self) -> bool:
        """Undoes `sleep`; if it fails, the critic stays asleep."""
        return await self._switch("wake", "awake")

    async def submit(self, jobs: Sequence[Job]) -> list[JobResult]:
        """Waits for the answers to the jobs of one request, which share a client and a deadline.

        Raises:
            ServiceError: The queue is full, the deadline passed, or the critic failed; none is asked further.
        """
        asked = [job for job in jobs if job.items]
        if asked:
            self._admit(asked[0].client, sum(job.items for job in asked))
        loop = asyncio.get_running_loop()
        futures = {job: job.open(loop) for job in asked}
        for job in asked:
            self._queue.add(job)
        self._news.set()
        self._count()
        try:
            async with asyncio.timeout_at(asked[0].deadline if asked else None):
                await asyncio.gather(*futures.values())
        except TimeoutError:
            raise self._too_late() from None
        finally:
            for job in asked:
                self._queue.remove(job)
            self._count()
        return [futures[job].result() if job in futures else NO_RESULT for job in jobs]

    def unavailable(self) -> ServiceError:
        """The refusal that fits the present state."""
        reason = {"loading": "loading", "asleep": "asleep"}.get(self.state, "shutting_down")
        return ServiceError(reason, f"The critic is {reason.replace('_', ' ')}.", retry_after_s=1.0)

    def _admit(self, client: str, items: int) -> None:
        if self.state == "closed":
            raise self.unavailable()
        if not self._queue.has_room(client, items):
            waiting = self._queue.waiting
            raise ServiceError(
                "queue_full",
                f"{waiting} items wait already; the bound is {self._queue.max_items}, half of it per client.",
                retry_after_s=min(30.0, max(0.1, waiting / self._items_per_s)),
            )

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._queue and self.state == "awake":
                await self._gather()
                async with self._model_lock:
                    if self.state == "awake" and (batch := self._queue.compose(self._max_batch)):
                        self._count()
                        await self._answer(batch)

    async def _gather(self) -> None:
        """Waits until a batch is full or its first item has waited long enough."""
        loop = asyncio.get_running_loop()
        if self._queue.next_job.operation == "value":
            return
        until = self._queue.oldest + self._max_wait_s
        while self._queue.waiting < self._max_batch and loop.time() < until:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._news.wait()

    async def _answer(self, batch: Sequence[Slice]) -> None:
        jobs = list(dict.fromkeys(piece.job for piece in batch))
        try:
            await self._ask(batch)
        except asyncio.CancelledError:
            for job in jobs:
                job.fail(self.unavailable())
            raise
        except ServiceError as error:
            if len(jobs) == 1:
                jobs[0].fail(error)
                return
            # One bad frame, or a batch too large for memory, must not fail the other clients: ask one by one.
            for job in jobs:
                try:
                    await self._ask([piece for piece in batch if piece.job is job])
                except ServiceError as own_error:
                    job.fail(own_error)

    async def _ask(self, batch: Sequence[Slice]) -> None:
        assert self._critic is not None, "batches are composed only after the critic was made"
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        values = await self._ask_critic(partial(ask_critic, self._critic, batch))
        seconds = loop.time() - started_at
        operation, items = batch[0].job.operation, len(values)
        self._metrics.model_seconds.labels(operation).observe(seconds)
        self._metrics.batch_items.labels(operation).observe(items)
        self._items_per_s = 0.9 * self._items_per_s + 0.1 * items / max(seconds, 1e-6)
        offset = 0
        for piece in batch:
            if piece.start == 0:
                self._metrics.queue_seconds.observe(started_at - piece.job.queued_at)
            answers = values[offset : offset + piece.items]
            piece.job.accept(piece, answers, started_at, model_s=seconds, batch=items)
            offset += piece.items

    async def _on_thread(self, call: Callable[[], _T]) -> _T:
        """Runs a call on the critic's thread."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, call)
        await asyncio.wait([future])
        return future.result()

    async def _ask_critic(self, call: Callable[[], _T]) -> _T:
        """`_on_thread` for the critic's methods; whatever they raise becomes a `ServiceError`."""
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
            assert self._critic is not None, "it is awake or asleep only after the critic was made"
            can_sleep = self._critic.can_sleep
            if self.state != state or self._is_half_way:
                if state == "asleep":
                    self._set_state(state)
                if can_sleep:
                    self._is_half_way = True
                    await self._ask_critic(self._critic.sleep if method == "sleep" else self._critic.wake)
                    self._is_half_way = False
                self._set_state(state)
                self._news.set()
            return can_sleep

    def _set_state(self, state: BatcherState) -> None:
        self.state = state
        self._metrics.awake.set(state == "awake")

    def _count(self) -> None:
        self._metrics.queue_items.set(self._queue.waiting)

    def _too_late(self) -> ServiceError:
        if self.state != "awake":
            return self.unavailable()
        return ServiceError(
            "deadline", f"No answer before the request's deadline; {self._queue.waiting} items wait."
        )
