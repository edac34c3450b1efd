"""A lock for objects that are pickled: `FreshLock`."""

__all__ = ["FreshLock"]

import threading


class FreshLock:
    """A `threading.Lock` for ``with``, whose copies and pickles are locks of their own, open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type["FreshLock"], tuple[()]]:
        return FreshLock, ()
