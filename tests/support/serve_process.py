"""`vlac-gym serve` as a process that tests kill, stop and start again: `ServeProcess`, `serving`."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

COMMAND = "import sys; from vlac_gym.cli import main; sys.exit(main())"


class ServeProcess:
    """A critic server on a port that it keeps over restarts.

    Args:
        critic: Spec of what it serves.
    """

    def __init__(self, critic: str) -> None:
        self._critic = critic
        self._port = "0"
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def begin(self) -> "ServeProcess":
        """Starts it, and does not wait for it."""
        assert self._process is None
        arguments = ["serve", "--critic", self._critic, "--port", self._port, "--log-level", "error"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.PIPE, text=True
        )
        return self

    def ready(self) -> "ServeProcess":
        """Waits until it answers."""
        self.url = self._process.stdout.readline().partition("Listening at ")[2].partition(";")[0]
        assert self.url.startswith("http://")
        assert self._process.stdout.readline() == "Ready.\n"
        self._port = self.url.rpartition(":")[2]
        return self

    def hang(self) -> None:
        """Takes connections from now on, and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Ends it at once; safe to call twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process.stdout.close()
            self._process = None

    def restore(self) -> None:
        """Has it answer again, whatever was done to it."""
        if self._process is None:
            self.begin().ready()
        else:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def serving(*critics: str) -> Iterator[list[ServeProcess]]:
    """A server of each of these specs, started side by side; killed at the end."""
    servers = [ServeProcess(spec).begin() for spec in critics]
    try:
        yield [server.ready() for server in servers]
    finally:
        for server in servers:
            server.kill()
