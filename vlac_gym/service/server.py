"""A critic server in this process: `serve`, `ServerConfig`, `JsonLogFormatter`."""

__all__ = ["JsonLogFormatter", "ServerConfig", "is_loopback", "serve"]

import asyncio
import ipaddress
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from vlac_gym.critic.base import Critic
from vlac_gym.critic.engines.cuda_memory import limit_cuda_memory
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.service.app import create_app
from vlac_gym.service.core import CriticService, ServiceConfig

with needs("A critic server", "serve"):
    import h11
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

_KEEP_ALIVE_S = 75
_CLOSE_S = 2.0
"""After the last answer: time for sockets to close and the critic to be freed."""


@dataclass(frozen=True)
class ServerConfig:
    """Where and how a server runs.

    Attributes:
        host: Address to bind; anything but this machine's own needs a token.
        port: 0 lets the system choose.
        shutdown_s: How long requests in work may take after SIGTERM or Ctrl-C.
        header_timeout_s: How long a request's headers may take to arrive.
        gpu_memory_fraction: Bound on this process's share of each GPU's memory, or None.
        service: Batches, limits and token.
    """

    host: str = "127.0.0.1"
    port: int = 8400
    shutdown_s: float = 30.0
    header_timeout_s: float = 10.0
    gpu_memory_fraction: float | None = None
    service: ServiceConfig = field(default_factory=ServiceConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"Expected a port in [0, 65535], got {self.port!r}.")
        for name in ("shutdown_s", "header_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Expected {name} above 0, got {getattr(self, name)!r}.")
        if not is_loopback(self.host) and self.service.token is None:
            raise ConfigError(
                f"Refused to serve on {self.host!r} without a token: anyone who reaches it could use the critic. "
                "Give --token-file (`openssl rand -hex 32 > token`), or bind 127.0.0.1."
            )


def serve(
    make_critic: Callable[[], Critic],
    config: ServerConfig,
    *,
    on_listening: Callable[[str], None] | None = None,
    on_ready: Callable[[], None] | None = None,
) -> int:
    """Serves a critic until SIGTERM or Ctrl-C; call it from the main thread.

    Connections are accepted while the critic still loads, so that clients wait instead of giving up.

    Args:
        make_critic: Makes the critic, in a thread of the server; freed at the end.
        config: Where and how.
        on_listening: Called with the URL once connections are accepted.
        on_ready: Called once the critic is loaded.

    Returns:
        0 after a shutdown that was asked for, 1 if requests in work outlived their time.

    Raises:
        ConfigError: The critic can't be served, or the address can't be bound.
        Exception: Whatever making the critic raised.
    """
    if config.gpu_memory_fraction is not None:
        limit_cuda_memory(config.gpu_memory_fraction)
    service = CriticService(make_critic, config.service)
    listener = _bind(config.host, config.port)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server = _Server(service, config, lambda: _tell(on_listening, url), on_ready)
    with listener:
        server.run(sockets=[listener])
    if service.load_error is not None:
        raise service.load_error
    return 1 if server.ran_out_of_time else 0


def _tell(listener: Callable[[str], None] | None, url: str) -> None:
    if listener is not None:
        listener(url)


def is_loopback(host: str) -> bool:
    """True if only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class JsonLogFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats one record; a traceback, if any, is in `exception`."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Server(uvicorn.Server):
    """Lets requests in work finish, refuses new ones with 503, and ends within its deadline."""

    def __init__(
        self,
        service: CriticService,
        config: ServerConfig,
        on_listening: Callable[[], None],
        on_ready: Callable[[], None] | None,
    ) -> None:
        self.ran_out_of_time = False
        self._service = service
        self._shutdown_s = config.shutdown_s
        self._on_listening = on_listening
        self._on_ready = on_ready
        self._drain_task: asyncio.Task[None] | None = None
        self._event_loop: asyncio.AbstractEventLoop | None = None
        super().__init__(
            uvicorn.Config(
                create_app(service, on_loaded=self._on_loaded),
                http=_protocol_with_header_timeout(config.header_timeout_s),
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=int(_CLOSE_S),
                # Connections, not requests: several per request that the limits allow, for probes and idle ones.
                limit_concurrency=4 * config.service.limits.max_concurrent_requests,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen and says so."""
        self._event_loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        self._on_listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM and Ctrl-C: the first drains, the second ends at once."""
        if self._event_loop is None or self._service.is_draining:
            self.force_exit = True
            self.should_exit = True
        else:
            self._service.is_draining = True
            self._event_loop.call_soon_threadsafe(self._begin_drain)

    def _begin_drain(self) -> None:
        # A model call that never returns holds a thread that nobody can end, so the process must.
        watchdog = threading.Timer(self._shutdown_s + 2 * _CLOSE_S, os._exit, [1])
        watchdog.daemon = True
        watchdog.start()
        self._drain_task = asyncio.create_task(self._drain(), name="drain")

    async def _drain(self) -> None:
        logger.info("shutting down; %d requests in work", self._service.requests_in_work)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._shutdown_s
        while self._service.requests_in_work and loop.time() < deadline:
            await asyncio.sleep(0.02)
        self.ran_out_of_time = self._service.requests_in_work > 0
        self.should_exit = True

    def _on_loaded(self, error: BaseException | None) -> None:
        if error is not None:
            self.should_exit = True
        elif self._on_ready is not None:
            self._on_ready()


def _protocol_with_header_timeout(header_timeout_s: float) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 with a bound on how long headers may take, which uvicorn lacks."""

    class HeaderTimeoutProtocol(H11Protocol):
        _header_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch_headers()
            super().connection_lost(exc)

        def _watch_headers(self) -> None:
            """Runs one timer from the first byte of a request until its headers are complete."""
            is_idle = self.conn.their_state is h11.IDLE
            is_between_requests = is_idle and self.cycle is not None and not self.conn.trailing_data[0]
            if not is_idle or is_between_requests:
                self._unwatch_headers()
            elif self._header_timer is None:
                self._header_timer = self.loop.call_later(header_timeout_s, self.transport.close)

        def _unwatch_headers(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

    return HeaderTimeoutProtocol


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as e:
        listener.close()
        raise ConfigError(
            f"Can't serve on {host}:{port}: {e.strerror or e}. Choose another --host or --port."
        ) from e
    return listener
