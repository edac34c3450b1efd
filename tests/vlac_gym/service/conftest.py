"""Fixtures of the service's tests: a critic worked by hand, servers in this process and in others."""

import importlib.util
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vlac_gym.service.client import RemoteCritic
from vlac_gym.types import Frame

PROGRAM = Path(__file__).with_name("fake_server.py")


class ServerProcess:
    """`fake_server.py` as a process of its own, on a port that it keeps over restarts."""

    def __init__(self, *options: str) -> None:
        self._options = list(options)
        self._port = "0"
        self.process: subprocess.Popen[str] | None = None
        self.url = ""
        self.log = ""

    def start(self) -> "ServerProcess":
        command = [sys.executable, str(PROGRAM), "--port", self._port, *self._options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://"), self.process.stderr.read()
        self._port = self.url.rpartition(":")[2]
        return self

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 20.0) -> int:
        """Waits for the end, keeps the log, and returns the exit status."""
        _, log = self.process.communicate(timeout=timeout_s)
        self.log += log
        return self.process.returncode

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


@pytest.fixture
def start_server() -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers with the given options of `fake_server.py`, and ends them after the test."""
    servers: list[ServerProcess] = []

    def start(*options: str) -> ServerProcess:
        servers.append(ServerProcess(*options))
        return servers[-1].start()

    yield start
    for server in servers:
        if server.process is not None and server.process.returncode is None:
            server.process.send_signal(signal.SIGCONT)
            server.kill()


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """One server without options, for all tests of a module that leave it as it was."""
    server = ServerProcess().start()
    yield server
    server.kill()


@pytest.fixture
def connect() -> Iterator[Callable[..., RemoteCritic]]:
    """`connect(urls, **options)`: a `RemoteCritic` that is closed after the test."""
    critics: list[RemoteCritic] = []

    def make(urls: str, **options: object) -> RemoteCritic:
        critics.append(RemoteCritic(urls, **options))
        return critics[-1]

    yield make
    for critic in critics:
        critic.close()


@pytest.fixture
def free_port() -> int:
    """A port that nobody listened on a moment ago, for programs that can't choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def load(name: str) -> ModuleType:
    """A helper module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, PROGRAM.with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fakes() -> ModuleType:
    """The module `fake_server`: `BrightnessCritic`, `brightness`."""
    return load("fake_server")


@pytest.fixture(scope="session")
def asgi() -> ModuleType:
    """The module `in_process`: `running`, `request_body`, `post`, `reason_of`."""
    return load("in_process")


@pytest.fixture(scope="session")
def random_frames() -> Callable[..., list[Frame]]:
    """`random_frames(count, height=8, width=8, seed=0)`: distinct frames."""

    def make(count: int, height: int = 8, width: int = 8, seed: int = 0) -> list[Frame]:
        rng = np.random.default_rng(seed)
        return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]

    return make
