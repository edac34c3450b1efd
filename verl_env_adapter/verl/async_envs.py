"""The envs of a pool for a trainer's coroutines: `AsyncEnvs`, `AsyncEnv`, `shared_envs`.

Episodes run at their own pace, and the envs that are ready at about the same time move together: one masked step, one
question to the critic. While a step or a reset is under way, the envs that become ready meanwhile wait for it.
Nothing here runs on the event loop for longer than a message takes.
"""

__all__ = ["AsyncEnv", "AsyncEnvs", "shared_envs"]

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from verl_env_adapter.common.conversion import check_actions
from verl_env_adapter.common.env_pool import EnvPool, check_start
from verl_env_adapter.common.env_report import EnvReport
from verl_env_adapter.common.settings import AdapterSettings
from vlac_gym.errors import AdapterContractError
from vlac_gym.types import Mode

GATHER_S = 0.02
"""How long the first env that is ready waits for others: little beside a chunk's physics, much beside the spread of
replies that a policy server sends as one batch."""


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
        self._lent: set[int] = set()
        self._running: set[int] = set()
        self._waiting: list[_Request] = []
        self._changed = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        # What follows is used in the thread alone.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vlac-gym-envs")
        self._pool: EnvPool | None = None

    @contextlib.asynccontextmanager
    async def lend(self, task_id: int | None = None) -> AsyncIterator[AsyncEnv]:
        """Lends an env, if possible one that has this task compiled; takes it back at the end."""
        async with self._free:
            same = [k for k, (last_task, _) in enumerate(self._idle) if last_task == task_id]
            _, env_id = self._idle.pop(same[0] if same else 0)
            self._lent.add(env_id)
            try:
                yield _LentEnv(self._ask, self._settings, env_id)
            finally:
                self._waiting = [request for request in self._waiting if request.env_id != env_id]
                self._lent.discard(env_id)
                self._running.discard(env_id)
                self._idle.append((task_id, env_id))
                self._changed.set()

    def close(self) -> None:
        """Ends the envs; safe to call twice."""
        pool, self._pool = self._pool, None
        if pool is not None:
            self._thread.submit(pool.close).result()
        self._thread.shutdown()

    async def _ask(self, request: _Request) -> EnvReport:
        self._waiting.append(request)
        self._changed.set()
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        return await request.answer

    async def _serve(self) -> None:
        """Moves envs as long as requests are waiting."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            await self._gather()
            ready = self._ready()
            if not ready:  # A reset waits for episodes of the other mode.
                self._changed.clear()
                await self._changed.wait()
                continue
            self._waiting = [request for request in self._waiting if request not in ready]
            try:
                outcomes = await loop.run_in_executor(self._thread, self._carry_out, ready)
            except RuntimeError as e:  # The envs are closed.
                outcomes = [e] * len(ready)
            for request, outcome in zip(ready, outcomes, strict=True):
                self._answer(request, outcome)

    async def _gather(self) -> None:
        """Waits until every lent env is ready, but not for long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + GATHER_S
        while len(self._waiting) < len(self._lent) and (left := until - loop.time()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def _ready(self) -> list[_Request]:
        """The requests that are served together: of the oldest one's kind, or chunks while that one must wait."""
        if not self._waiting:
            return []
        mode = self._waiting[0].mode
        resets = [request for request in self._waiting if request.mode == mode]
        current = None if self._pool is None else self._pool.envs.mode
        must_wait = mode != current and self._running - {request.env_id for request in resets}
        if mode is not None and not must_wait:
            return resets
        return [request for request in self._waiting if request.mode is None]

    def _answer(self, request: _Request, outcome: EnvReport | Exception) -> None:
        if request.answer.done():  # Cancelled: its env may be lent to another episode by now.
            return
        if isinstance(outcome, Exception):
            self._running.discard(request.env_id)
            request.answer.set_exception(outcome)
            return
        (self._running.discard if outcome.is_over else self._running.add)(request.env_id)
        request.answer.set_result(outcome)

    # In the thread.

    def _carry_out(self, requests: Sequence[_Request]) -> list[EnvReport | Exception]:
        try:
            if self._pool is None:
                self._pool = self._make()
            move = self._step if requests[0].mode is None else self._reset
            outcomes = move(self._pool, requests)
            return [outcomes[request.env_id] for request in requests]
        except Exception as e:  # noqa: BLE001 (every episode that is concerned raises it)
            return [e] * len(requests)

    def _reset(self, pool: EnvPool, requests: Sequence[_Request]) -> Mapping[int, EnvReport | Exception]:
        mode = requests[0].mode
        assert mode is not None
        if mode != pool.envs.mode:
            pool.give_up()
        ids = [request.env_id for request in requests]
        reports = pool.reset(ids, mode=mode, options=[request.start for request in requests])
        return dict(zip(ids, reports, strict=True))

    def _step(self, pool: EnvPool, requests: Sequence[_Request]) -> Mapping[int, EnvReport | Exception]:
        refused: dict[int, Exception] = {}
        by_length: dict[int, dict[int, NDArray[np.float32]]] = {}
        for request in requests:
            try:
                chunk = self._checked(pool, request)
            except AdapterContractError as e:
                refused[request.env_id] = e
            else:
                by_length.setdefault(len(chunk), {})[request.env_id] = chunk
        outcomes: dict[int, EnvReport | Exception] = {**refused}
        for chunks in by_length.values():
            lost = pool.play(chunks)
            outcomes |= {
                i: lost[i] if report is None else report
                for i, report in zip(chunks, pool.reports(list(chunks)))
            }
        return outcomes

    def _checked(self, pool: EnvPool, request: _Request) -> NDArray[np.float32]:
        if pool.reports([request.env_id]) == [None]:
            raise AdapterContractError(
                "The env has no running episode: it was not reset, or another env failed since. Call reset."
            )
        chunk: NDArray[np.float32] = check_actions(
            np.asarray(request.actions)[None],
            num_envs=1,
            action_size=pool.action_size,
            max_chunk=self._settings.env.chunk,
            where="the policy",
        )[0]
        return chunk


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
