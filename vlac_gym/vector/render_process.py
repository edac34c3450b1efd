"""The process that draws for a vector env's workers: `RenderProcess`."""

__all__ = ["RenderProcess"]

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.context import BaseContext

from vlac_gym.envs.render_client import RenderLine
from vlac_gym.envs.render_service import serve_pictures


class RenderProcess:
    """A process that draws the pictures of several workers, and how they reach it.

    It ends when it is stopped, and with this process. A worker that ends has what was its own freed there.

    Args:
        context: Starts the process.
        number: Its position among those of the vector env.
        render_devices: See `spread_rendering`.

    Attributes:
        line: What workers are given; another one after `restart`.
    """

    def __init__(
        self, context: BaseContext, number: int, render_devices: Sequence[int] | None = None
    ) -> None:
        self._context = context
        self._arguments = (number, render_devices)
        self._start()

    @property
    def pid(self) -> int:
        """The process id."""
        pid: int = self._process.pid
        return pid

    @property
    def is_gone(self) -> bool:
        """The process has ended, or is about to: it serves nobody any more."""
        return self.line.lobby.poll()  # it sends nothing, so this is the end of its pipes

    def restart(self) -> None:
        """Starts a successor, which knows no worker yet."""
        self._discard()
        self._start()

    def ask_to_stop(self) -> None:
        """Asks the process to end by itself, whoever else has its lobby; `stop` must follow."""
        with (
            suppress(OSError),
            socket.socket(fileno=os.dup(self.line.lobby.fileno())) as lobby,
        ):  # it may be gone
            lobby.shutdown(socket.SHUT_RDWR)

    def stop(self, deadline_s: float) -> None:
        """Waits for the process to end by itself until the deadline, then kills it."""
        self._process.join(max(0.0, deadline_s - time.monotonic()))
        self._discard()

    def _start(self) -> None:
        number, render_devices = self._arguments
        lobby, theirs = self._context.Pipe()
        self._process = self._context.Process(  # type: ignore[attr-defined]
            target=serve_pictures,
            args=(theirs, number, render_devices),
            daemon=True,
            name=f"vlac-gym-render-{number}",
        )
        self._process.start()
        theirs.close()  # else nobody would notice the end of the process
        self.line = RenderLine(lobby, f"render process {number} (process id {self.pid})")

    def _discard(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()
        self.line.lobby.close()
