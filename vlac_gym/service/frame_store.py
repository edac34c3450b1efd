"""Frames by content: `FrameStore`, bounded in bytes, least recently used out first."""

__all__ = ["FrameStore"]

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from vlac_gym.errors import ConfigError
from vlac_gym.types import Frame


class FrameStore:
    """Keeps frames by digest up to a number of bytes; safe to use from several threads.

    A frame that a request holds stays valid after it left the store: the store only forgets it.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 1:
            raise ConfigError(f"Expected max_bytes of the frame store of at least 1, got {max_bytes}.")
        self.max_bytes = max_bytes
        self._frames: OrderedDict[bytes, Frame] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of pixels held now."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._frames)

    def take(self, digests: Sequence[bytes]) -> tuple[dict[bytes, Frame], list[bytes]]:
        """The frames held, by digest, and the digests that are not; held ones count as just used."""
        found: dict[bytes, Frame] = {}
        missing: list[bytes] = []
        with self._lock:
            for digest in digests:
                frame = self._frames.get(digest)
                if frame is None:
                    missing.append(digest)
                else:
                    self._frames.move_to_end(digest)
                    found[digest] = frame
        return found, missing

    def put(self, frames: Mapping[bytes, Frame]) -> None:
        """Adds frames and forgets the least recently used ones beyond `max_bytes`."""
        with self._lock:
            for digest, frame in frames.items():
                if digest not in self._frames:
                    self._frames[digest] = frame
                    self._bytes += frame.nbytes
                self._frames.move_to_end(digest)
            while self._bytes > self.max_bytes:
                _, frame = self._frames.popitem(last=False)
                self._bytes -= frame.nbytes

    def clear(self) -> None:
        """Forgets every frame."""
        with self._lock:
            self._frames.clear()
            self._bytes = 0
