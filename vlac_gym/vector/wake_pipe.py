"""Waking a thread that waits for connections: `WakePipe`."""

__all__ = ["WakePipe"]

import multiprocessing
import threading


class WakePipe:
    """A connection that is readable from a `ring` until the next `clear`: the self-pipe trick, for any threads.

    Attributes:
        connection: To be waited for among others, by `multiprocessing.connection.wait`.
    """

    def __init__(self) -> None:
        self.connection, self._writer = multiprocessing.Pipe(duplex=False)
        self._lock = threading.Lock()
        self._is_rung = False

    def ring(self) -> None:
        """Makes the connection readable; never blocks, and does nothing once it is closed."""
        with self._lock:
            if not self._is_rung and not self._writer.closed:
                self._writer.send_bytes(b"!")
                self._is_rung = True

    def clear(self) -> None:
        """Takes all rings so far back."""
        with self._lock:
            if self._is_rung:
                self.connection.recv_bytes()
                self._is_rung = False

    def close(self) -> None:
        """Closes both ends."""
        with self._lock:
            self.connection.close()
            self._writer.close()
            self._is_rung = False
