"""Picture features by content, bounded in bytes: `ByteBoundedCache`."""

__all__ = ["ByteBoundedCache"]

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteBoundedCache(Generic[K, V]):
    """Keeps what was used last, as long as the sizes sum up to no more than a bound.

    Args:
        max_bytes: The bound; 0 keeps nothing.

    Example:
        >>> cache = ByteBoundedCache[str, str](max_bytes=2)
        >>> for key in ("a", "b"):
        ...     cache.put(key, key.upper(), size=1)
        >>> cache.get("a")
        'A'
        >>> cache.put("c", "C", size=1)
        >>> "a" in cache, "b" in cache, "c" in cache
        (True, False, True)
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, which now counts as used last, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Adds or replaces a value of `size` bytes; drops what was used longest ago until all fits."""
        self._drop(key)
        if size > self.max_bytes:
            return
        while self.used_bytes + size > self.max_bytes:
            self._drop(next(iter(self._entries)))
        self._entries[key] = (value, size)
        self.used_bytes += size

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self.used_bytes = 0

    def _drop(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.used_bytes -= entry[1]
