"""Which frames a server holds, as far as its client knows: `KnownFrames`."""

__all__ = ["KnownFrames"]

import threading
from collections import OrderedDict
from collections.abc import Sequence

_MAX_DIGESTS = 2**17
_FORGOTTEN_AFTER = 32
"""Replies without a word from an instance, after which it counts as gone."""


class KnownFrames:
    """Digests by server instance: several replicas may answer at one URL, each with frames of its own.

    A frame counts as known only if every live instance has it; a wrong guess costs one resend.
    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._held: dict[str, OrderedDict[bytes, None]] = {}
        self._last_reply: dict[str, int] = {}
        self._replies = 0
        self._lock = threading.Lock()

    @property
    def instances(self) -> int:
        """How many server processes answered lately."""
        return len(self._held)

    def add(self, instance: str, digests: Sequence[bytes]) -> None:
        """Notes that an instance answered and holds these frames."""
        with self._lock:
            self._replies += 1
            self._last_reply[instance] = self._replies
            held = self._held.setdefault(instance, OrderedDict())
            for digest in digests:
                held[digest] = None
                held.move_to_end(digest)
            while len(held) > _MAX_DIGESTS:
                held.popitem(last=False)
            for name, last in list(self._last_reply.items()):
                if self._replies - last > _FORGOTTEN_AFTER:
                    del self._held[name], self._last_reply[name]

    def unknown_of(self, digests: Sequence[bytes]) -> list[bytes]:
        """Those of the frames that some instance may lack, in order."""
        with self._lock:
            held = list(self._held.values())
            return [digest for digest in digests if not held or not all(digest in one for one in held)]

    def forget(self, digests: Sequence[bytes]) -> None:
        """Notes that frames are gone."""
        with self._lock:
            for held in self._held.values():
                for digest in digests:
                    held.pop(digest, None)

    def clear(self) -> None:
        """Notes that nothing is known."""
        with self._lock:
            self._held.clear()
            self._last_reply.clear()
