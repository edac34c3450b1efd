"""Env processes lent to a trainer's coroutines: `EnvWorkers`, `AsyncEnv`, `shared_workers`.

Nothing here runs on the event loop for longer than a message takes.
"""

__all__ = ["AsyncEnv", "EnvWorkers", "shared_workers"]

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from verl_env_adapter.env_process import EnvProcess
from verl_env_adapter.episode_env import EnvReport, EpisodeEnv
from verl_env_adapter.settings import AdapterSettings
from vlac_gym.errors import SimulatorError
from vlac_gym.extras import needs
from vlac_gym.types import Mode


class AsyncEnv(Protocol):
    """An `EpisodeEnv` somewhere else."""

    @property
    def is_alive(self) -> bool:
        """Can it be lent again?"""
        ...

    async def reset(self, *, mode: Mode, **start: int | None) -> EnvReport:
        """See `EpisodeEnv.reset`."""
        ...

    async def step_chunk(self, actions: Any) -> EnvReport:
        """See `EpisodeEnv.step_chunk`."""
        ...

    def close(self) -> None:
        """Ends it; safe to call twice."""
        ...


class LocalEnv:
    """An env process on this machine; a thread of its own waits for it."""

    def __init__(self, settings: AdapterSettings) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vlac-gym-env")
        self._process = EnvProcess(settings)

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive

    async def reset(self, *, mode: Mode, **start: int | None) -> EnvReport:
        return await self._call(lambda: self._process.reset(mode=mode, **start))

    async def step_chunk(self, actions: Any) -> EnvReport:
        return await self._call(lambda: self._process.step_chunk(actions))

    def close(self) -> None:
        self._process.close()
        self._thread.shutdown(wait=False)

    async def _call(self, work: Callable[[], EnvReport]) -> EnvReport:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class RayEnv:
    """An env in a Ray actor, on whichever node has the resource `placement.env_resource`."""

    def __init__(self, settings: AdapterSettings) -> None:
        with needs("placement.env_resource", "ray"):
            import ray
        self._ray = ray
        self._placement = settings.placement
        self._started: set[int | None] = set()
        self.is_alive = True
        # A thousandth: the resource says where, the CPU how many.
        actor = ray.remote(EpisodeEnv).options(num_cpus=1, resources={settings.placement.env_resource: 0.001})
        self._actor: Any = actor.remote(settings, host_deadline_s=settings.placement.step_timeout_s)

    async def reset(self, *, mode: Mode, **start: int | None) -> EnvReport:
        task_id = start.get("task_id")
        timeout_s = (
            self._placement.step_timeout_s if task_id in self._started else self._placement.start_timeout_s
        )
        report = await self._wait(self._actor.reset.remote(mode=mode, **start), timeout_s)
        self._started.add(task_id)
        return report

    async def step_chunk(self, actions: Any) -> EnvReport:
        return await self._wait(self._actor.step_chunk.remote(actions), self._placement.step_timeout_s)

    def close(self) -> None:
        if self.is_alive:
            self.is_alive = False
            self._ray.kill(self._actor)

    async def _wait(self, reference: Any, timeout_s: float) -> EnvReport:
        try:
            report: EnvReport = await asyncio.wait_for(asyncio.wrap_future(reference.future()), timeout_s)
        except TimeoutError as e:
            self.close()
            raise SimulatorError(
                f"The env actor gave no answer in {timeout_s:.0f} s and was ended. Has a node the resource "
                f"{self._placement.env_resource!r}? Else raise placement.step_timeout_s."
            ) from e
        except self._ray.exceptions.RayActorError as e:
            self.is_alive = False
            raise SimulatorError(f"The env actor died: {e}") from e
        return report


class EnvWorkers:
    """At most `placement.envs_per_worker` envs, started when needed, kept warm, lent one episode at a time.

    Args:
        settings: The trainer's block.
        make: What builds an env; None chooses by `placement.env_resource`.
    """

    def __init__(
        self, settings: AdapterSettings, make: Callable[[AdapterSettings], AsyncEnv] | None = None
    ) -> None:
        default = LocalEnv if settings.placement.env_resource is None else RayEnv
        self._make: Callable[[AdapterSettings], AsyncEnv] = make or default
        self._settings = settings
        self._free = asyncio.Semaphore(settings.placement.envs_per_worker)
        self._idle: list[tuple[int | None, AsyncEnv]] = []

    @contextlib.asynccontextmanager
    async def lend(self, task_id: int | None = None) -> AsyncIterator[AsyncEnv]:
        """Lends an env, if possible one that has this task compiled; takes it back at the end.

        An env that failed in a way that ended it is not lent again.
        """
        async with self._free:
            env = self._take(task_id)
            try:
                yield env
            finally:
                if env.is_alive:
                    self._idle.append((task_id, env))
                else:
                    env.close()

    def close(self) -> None:
        """Ends the idle envs."""
        while self._idle:
            self._idle.pop()[1].close()

    def _take(self, task_id: int | None) -> AsyncEnv:
        for i, (last_task, _) in enumerate(self._idle):
            if last_task == task_id:
                return self._idle.pop(i)[1]
        if self._idle:
            return self._idle.pop(0)[1]
        return self._make(self._settings)


_SHARED: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, EnvWorkers]] = (
    weakref.WeakKeyDictionary()
)


def shared_workers(settings: AdapterSettings) -> EnvWorkers:
    """This event loop's workers for these settings; the same on every call.

    A trainer builds a new agent loop for every episode; the envs must outlive it.
    """
    by_settings = _SHARED.setdefault(asyncio.get_running_loop(), {})
    return by_settings.setdefault(repr(settings), EnvWorkers(settings))
