"""Threads for work on frames, where there is enough of it: `FrameThreads`."""

__all__ = ["FrameThreads"]

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

_FEW = 16
"""Frames whose work is done at once: one of 256 x 256 pixels takes 0.1 to 0.3 ms, and handing it to a thread and back
many times that where simulators keep all cores busy (docs/performance.md)."""


class FrameThreads:
    """A pool of threads that is passed over for a few frames.

    Args:
        max_workers: Threads of the pool.
        name: Prefix of their names.
    """

    def __init__(self, max_workers: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers, thread_name_prefix=name)

    def for_frames(self, count: int) -> Executor:
        """What runs the work on so many frames: the pool, or for a few of them the thread that submits it."""
        return self._pool if count > _FEW else _IN_THIS_THREAD

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=True)


class _ThisThread(Executor):
    """Does what is submitted before `submit` returns, and raises there what it raises."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


_IN_THIS_THREAD = _ThisThread()
