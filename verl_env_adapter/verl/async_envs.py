"""The envs of a pool for a trainer's coroutines: `AsyncEnvs`, `AsyncEnv`, `shared_envs`.

Each env begins its chunk or its reset when its coroutine asks for it, and answers when it is ready; none waits for
another. Questions to the critic that come within `critic.ask_window_s`, or while it is busy, are asked together.
Nothing here runs on the event loop for longer than a message takes.
"""

__all__ = ["AsyncEnv", "AsyncEnvs", "shared_envs"]

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from numpy.typing import NDArray

from verl_env_adapter.common.env_pool import EnvPool, check_start
from verl_env_adapter.common.env_report import EnvReport
from verl_env_adapter.common.settings import AdapterSettings
from vlac_gym.types import Mode


class AsyncEnv(Protocol):
    """One env, lent for an episode."""

    async def reset(self, *, mode: Mode, **start: int | None) -> EnvReport:
        """Starts the episode; `seed`, `task_id` and `init_state_id` as for `EnvPool.reset`."""
        ...

    async def step_chunk(self, actions: NDArray[Any]) -> EnvReport:
        """Executes (T, A) actions, up to the episode's end; after it, does nothing."""
        ...


@dataclass(frozen=True, eq=False)
class _Request:
    """What a lent env waits for: a reset if it has a mode, else a chunk of actions (T, A)."""

    env_id: int
    answer: "asyncio.Future[EnvReport]"
    mode: Mode | None = None
    start: Mapping[str, int | None] = field(default_factory=dict)
    actions: NDArray[Any] | None = None


class AsyncEnvs:
    """`placement.envs_per_worker` envs, kept warm, lent one episode at a time; more episodes than that wait.

    All envs are in one mode: a reset in the other one waits until the running episodes are over, or given back.

    Args:
        settings: The trainer's block.
        make: Builds the pool, when an env is first reset; None gives each env a process of its own.
    """

    def __init__(self, settings: AdapterSettings, make: Callable[[], EnvPool] | None = None) -> None:
        count = settings.placement.envs_per_worker
        self._settings = settings
        self._make = make or partial(EnvPool, settings, count, isolated=True)
        self._free = asyncio.Semaphore(count)
        self._idle: list[tuple[int | None, int]] = [(None, i) for i in range(count)]
        self._running: set[int] = set()
        self._waiting: list[_Request] = []
        self._under_way: dict[int, _Request] = {}
        self._mode: Mode = "eval"  # of the episodes begun last, and of a new pool
        self._changed = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        # The thread alone uses the pool; it takes requests from here.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vlac-gym-envs")
        self._pool: EnvPool | None = None
        self._inbox: deque[_Request | None] = deque()  # None ends the waiting

    @contextlib.asynccontextmanager
    async def lend(self, task_id: int | None = None) -> AsyncIterator[AsyncEnv]:
        """Lends an env, if possible one that has this task compiled; takes it back at the end."""
        async with self._free:
            same = [k for k, (last_task, _) in enumerate(self._idle) if last_task == task_id]
            _, env_id = self._idle.pop(same[0] if same else 0)
            try:
                yield _LentEnv(self._ask, self._settings, env_id)
            finally:
                self._waiting = [request for request in self._waiting if request.env_id != env_id]
                self._running.discard(env_id)
                self._idle.append((task_id, env_id))
                self._changed.set()

    def close(self) -> None:
        """Ends the envs; safe to call twice."""
        pool, self._pool = self._pool, None
        if pool is not None:
            self._inbox.append(None)
            pool.interrupt_recv()
            self._thread.submit(pool.close).result()
        self._thread.shutdown()

    async def _ask(self, request: _Request) -> EnvReport:
        self._waiting.append(request)
        self._changed.set()
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        elif self._pool is not None and self._under_way and self._begin():
            self._pool.interrupt_recv()
        return await request.answer

    async def _serve(self) -> None:
        """Has the thread move envs as long as requests are waiting or under way."""
        loop = asyncio.get_running_loop()

        def deliver(outcomes: Mapping[int, EnvReport | Exception]) -> None:  # from the thread
            loop.call_soon_threadsafe(self._deliver, outcomes)

        while self._waiting or self._under_way:
            try:
                if self._pool is None:
                    self._pool = await loop.run_in_executor(self._thread, self._make)
                self._begin()
                if not self._under_way:  # a reset waits for episodes of the other mode
                    self._changed.clear()
                    await self._changed.wait()
                    continue
                await loop.run_in_executor(self._thread, _carry_out, self._pool, self._inbox, deliver)
            except Exception as e:  # noqa: BLE001 (every episode that is concerned raises it)
                concerned = list(self._under_way.values())
                self._under_way.clear()
                self._inbox.clear()
                if self._pool is None:  # it can't be made, or is closed
                    concerned += self._waiting
                    self._waiting = []
                for request in concerned:
                    self._answer(request, e)

    def _deliver(self, outcomes: Mapping[int, EnvReport | Exception]) -> None:
        """Answers those that wait for these envs, and begins what has waited for their end."""
        for env_id, outcome in outcomes.items():
            self._answer(self._under_way.pop(env_id), outcome)
        if self._pool is not None and self._under_way and self._begin():
            self._pool.interrupt_recv()

    def _begin(self) -> bool:
        """Hands the thread all that can begin now; returns whether there was any."""
        begun = self._startable()
        self._waiting = [request for request in self._waiting if request not in begun]
        self._under_way |= {request.env_id: request for request in begun}
        self._mode = next((request.mode for request in begun if request.mode is not None), self._mode)
        self._inbox.extend(begun)
        return bool(begun)

    def _startable(self) -> list[_Request]:
        """The requests that can begin now; a reset in the other mode waits until no episode runs, and the next ones
        with it.
        """
        free = [request for request in self._waiting if request.env_id not in self._under_way]
        chunks = [request for request in free if request.mode is None]
        resets = [request for request in free if request.mode is not None]
        if not resets:
            return chunks
        same = [request for request in resets if request.mode == resets[0].mode]
        if same[0].mode == self._mode:
            return chunks + same
        must_wait = chunks or self._under_way or self._running - {request.env_id for request in same}
        return chunks if must_wait else same

    def _answer(self, request: _Request, outcome: EnvReport | Exception) -> None:
        if request.answer.done():  # Cancelled: its env may be lent to another episode by now.
            return
        if isinstance(outcome, Exception):
            self._running.discard(request.env_id)
            request.answer.set_exception(outcome)
            return
        (self._running.discard if outcome.is_over else self._running.add)(request.env_id)
        request.answer.set_result(outcome)


def _carry_out(
    pool: EnvPool,
    inbox: "deque[_Request | None]",
    deliver: Callable[[Mapping[int, EnvReport | Exception]], object],
) -> None:
    """Begins what is in the inbox, and what comes into it, and delivers what envs say, until none is under way."""
    while inbox or pool.is_under_way:
        refused: dict[int, EnvReport | Exception] = {}
        while inbox:
            request = inbox.popleft()
            if request is None:
                return
            try:
                _start(pool, request)
            except Exception as e:  # noqa: BLE001 (its own episode raises it)
                refused[request.env_id] = e
        if outcomes := refused or pool.recv():  # none where there is more to begin
            deliver(outcomes)


def _start(pool: EnvPool, request: _Request) -> None:
    if request.mode is None:
        pool.send_chunk(request.env_id, request.actions)
        return
    if request.mode != pool.envs.mode:
        pool.switch_mode(request.mode)
    pool.send_reset(request.env_id, request.start)


class _LentEnv:
    """See `AsyncEnv`."""

    def __init__(
        self, ask: Callable[[_Request], Awaitable[EnvReport]], settings: AdapterSettings, env_id: int
    ) -> None:
        self._ask = ask
        self._settings = settings
        self._env_id = env_id

    async def reset(self, *, mode: Mode, **start: int | None) -> EnvReport:
        check_start(start, self._settings)
        return await self._ask(_Request(self._env_id, _future(), mode=mode, start=start))

    async def step_chunk(self, actions: NDArray[Any]) -> EnvReport:
        return await self._ask(_Request(self._env_id, _future(), actions=actions))


def _future() -> "asyncio.Future[EnvReport]":
    return asyncio.get_running_loop().create_future()


_SHARED: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, AsyncEnvs]] = (
    weakref.WeakKeyDictionary()
)


def shared_envs(settings: AdapterSettings) -> AsyncEnvs:
    """This event loop's envs for these settings; the same on every call.

    A trainer builds a new agent loop for every episode; the envs must outlive it.
    """
    by_settings = _SHARED.setdefault(asyncio.get_running_loop(), {})
    key = repr(settings)
    if key not in by_settings:
        by_settings[key] = AsyncEnvs(settings)
    return by_settings[key]
