"""A critic behind HTTP, used like any other: `RemoteCritic`.

Frames are sent as they are, never scaled: which scaling leaves an answer unchanged is the model's secret.
"""

__all__ = ["RemoteCritic"]

import logging
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar, cast

from vlac_gym.critic.base import BaseCritic
from vlac_gym.errors import ConfigError, CriticError
from vlac_gym.service.client_config import ClientConfig, base_urls, read_url_spec
from vlac_gym.service.exchange import Exchange, HttpCall, HttpReply, Pause, Steps
from vlac_gym.service.question import progress_question, success_question, value_question
from vlac_gym.service.served import describe_served
from vlac_gym.service.transport import (
    body_chunks,
    check_deadline,
    httpx,
    mapped_error,
)
from vlac_gym.types import CriticInfo, FloatArray, Frame

_T = TypeVar("_T")

logger = logging.getLogger(__name__)


class RemoteCritic(BaseCritic):
    """A critic on a server, with the answers of the critic there.

    Connects on first use, can be pickled, forked and shared by threads. Retries lost connections,
    timeouts and overload, with pauses, up to `max_attempts` and `deadline_s`; asking again is harmless,
    since a critic keeps no state. Anything else is raised at once.

    Args:
        urls: One base URL, or several for fail-over: a sequence, or one text with commas.
        config: Deadlines, retries, token, encoding; the defaults without it.
        **options: Fields of `ClientConfig` that are other than in `config`, e.g. `timeout_s=10`.

    Raises:
        ConfigError: An address or option does not fit.

    Example:
        >>> critic = RemoteCritic("http://127.0.0.1:8400", timeout_s=10)
        >>> critic
        RemoteCritic('http://127.0.0.1:8400')
    """

    def __init__(self, urls: str | Sequence[str], config: ClientConfig | None = None, **options: Any) -> None:
        if unknown := options.keys() - ClientConfig.__dataclass_fields__.keys():
            raise ConfigError(
                f"Unknown options of a remote critic: {', '.join(sorted(unknown))}. "
                f"Known: {', '.join(ClientConfig.__dataclass_fields__)}."
            )
        self._urls = base_urls(urls)
        self._config = replace(config or ClientConfig(), **options).with_token()
        self._exchanges: dict[int, Exchange] = {}
        self._clients: dict[int, httpx.Client] = {}

    is_remote = True
    takes_concurrent_calls = True

    @classmethod
    def from_http(cls, argument: str, **options: Any) -> Self:
        """Builds a client from what follows `http:`, as in `http://one:8400,http://two:8400?timeout_s=5`."""
        return cls._from_spec(f"http:{argument}", options)

    @classmethod
    def from_https(cls, argument: str, **options: Any) -> Self:
        """Builds a client from what follows `https:`."""
        return cls._from_spec(f"https:{argument}", options)

    @classmethod
    def _from_spec(cls, spec: str, given: Mapping[str, Any]) -> Self:
        urls, options = read_url_spec(spec, given)
        return cls(urls, **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({','.join(self._urls)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"_urls": self._urls, "_config": self._config}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._exchanges, self._clients = {}, {}

    @property
    def statistics(self) -> dict[str, int]:
        """`failures` (attempts), `retries`, `failovers`, `bytes_sent` and `frames_sent` of this process."""
        exchange = self._exchange
        return {
            "failures": exchange.failures,
            "retries": exchange.retries,
            "failovers": exchange.failovers,
            "bytes_sent": exchange.bytes_sent,
            "frames_sent": exchange.frames_sent,
        }

    @property
    def retries(self) -> int:
        """Attempts after a question's first, in this process."""
        return self._exchange.retries

    @property
    def failovers(self) -> int:
        """How often the next attempt went to another of the servers, in this process."""
        return self._exchange.failovers

    @property
    def _exchange(self) -> Exchange:
        """This process's exchange: a forked child must not share its parent's connections or locks."""
        pid = os.getpid()
        exchange = self._exchanges.get(pid)
        return (
            exchange
            if exchange is not None
            else self._exchanges.setdefault(pid, Exchange(self._urls, self._config))
        )

    def _client_options(self) -> dict[str, Any]:
        context: ssl.SSLContext | bool = True
        if self._config.ca_file is not None:
            context = ssl.create_default_context(cafile=self._config.ca_file)
        # trust_env: a proxy meant for the web is no way to a critic in the cluster.
        return {"verify": context, "trust_env": False, "limits": httpx.Limits(max_keepalive_connections=64)}

    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> FloatArray:
        """See `vlac_gym.critic.base.Critic.success_prob`."""
        config = self._config
        return self._drive(
            self._exchange.ask(success_question(frames, tasks, config.encoding, config.jpeg_quality))
        )

    def progress(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> FloatArray:
        """See `vlac_gym.critic.base.Critic.progress`."""
        config = self._config
        question = progress_question(before, after, tasks, references, config.encoding, config.jpeg_quality)
        return self._drive(self._exchange.ask(question))

    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        """See `vlac_gym.critic.base.Critic.value`."""
        return self.values([frames], [task], references)[0]

    def values(
        self,
        episodes: Sequence[Sequence[Frame]],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> list[FloatArray]:
        """The value lists of several episodes in one request; see `BaseCritic.values`."""
        config = self._config
        question = value_question(episodes, tasks, references, config.encoding, config.jpeg_quality)
        return question.cut(self._drive(self._exchange.ask(question)))

    def describe(self) -> CriticInfo:
        """The critic that the server serves, with the URLs in `details["urls"]` and all it says in `details["server"]`.

        Asks the server once, and waits while that loads its model. A server that can't be reached is told by
        `name="remote"`, and asked again by the next call.
        """
        server = self._exchange.server_info
        if server is None:
            try:
                server = self.server_info(retry=False)
            except (CriticError, ConfigError) as e:
                logger.warning("which critic is served is unknown: %s", e)
        return describe_served(server, self._urls)

    def server_info(self, *, retry: bool = True) -> dict[str, Any]:
        """What the server says of itself now: critic, protocol, limits, state.

        Args:
            retry: False raises a lost connection or a timeout of the last server at once; servers that are
                loading or busy are waited for all the same.
        """
        return self._drive(self._exchange.get_info() if retry else self._exchange.look())

    def identify(self, *, retry: bool = True) -> CriticInfo:
        """`describe` after `server_info`, which raises where there is no answer."""
        self.server_info(retry=retry)
        return self.describe()

    @property
    def can_sleep(self) -> bool:
        """True: the server is told, and does what its critic can."""
        return True

    def gpu_memory_bytes(self) -> int | None:
        """GPU memory that torch holds in the server's process now, bytes; 0 without a GPU, None from old servers."""
        held = self.server_info().get("gpu_memory_bytes")
        return None if held is None else int(held)

    def sleep(self) -> None:
        """Frees the server's GPU memory until `wake`; questions wait meanwhile."""
        self._drive(self._exchange.switch("sleep"))

    def wake(self) -> None:
        """Undoes `sleep`."""
        self._drive(self._exchange.switch("wake"))

    def close(self) -> None:
        """Closes this process's connections; a later question opens new ones."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drive(self, steps: Steps[_T]) -> _T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    reply = self._send(step)
                except CriticError as e:
                    step = steps.throw(e)
                else:
                    step = steps.send(reply)
        except StopIteration as stop:
            return cast(_T, stop.value)

    def _send(self, call: HttpCall) -> HttpReply:
        deadline = time.monotonic() + call.timeout_s
        client = self._clients.get(os.getpid())
        if client is None:
            client = self._clients.setdefault(os.getpid(), httpx.Client(**self._client_options()))
        headers = call.headers | {"content-length": str(len(call.body))}
        try:
            with client.stream(
                call.method,
                call.url,
                headers=headers,
                content=body_chunks(call.body, deadline, call.url),
                timeout=call.timeout_s,
            ) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    check_deadline(deadline, call.url)
        except httpx.HTTPError as e:
            raise mapped_error(e, call) from e
        return HttpReply(response.status_code, bytes(body), response.headers.get("retry-after"))
