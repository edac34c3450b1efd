"""`OpenAIEngine`: a model behind any OpenAI-compatible server that returns log-probabilities.

Works with `vllm serve CHECKPOINT` and with every server that answers `POST /chat/completions` with
`logprobs` and `top_logprobs`. Nothing but httpx and Pillow is needed on this side.
"""

__all__ = ["OpenAIEngine"]

import importlib
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

from vlac_gym.critic.base import frame_digest
from vlac_gym.critic.engines.base import EngineReply, EngineRequest
from vlac_gym.critic.engines.chat_completions import read_reply, request_body
from vlac_gym.critic.engines.chat_prompts import check_request
from vlac_gym.critic.retries import RetryPolicy, call_with_retries
from vlac_gym.errors import (
    ConfigError,
    CriticConnectionError,
    CriticError,
    CriticOverloadedError,
    CriticProtocolError,
    CriticServerError,
    CriticTimeoutError,
)
from vlac_gym.extras import needs
from vlac_gym.frames.codec import png_data_url

_QUOTED_CHARS = 300
_MAX_REPLY_BYTES = 1 << 26
"""More than any number of tokens with ten candidates each takes."""


class OpenAIOptions(TypedDict, total=False):
    """Keyword arguments of `OpenAIEngine`; see there."""

    api_key: str | None
    timeout_s: float
    max_tries: int
    backoff_s: float
    max_concurrency: int
    image_size: int | None
    proxy: str | None
    extra_body: Mapping[str, Any] | None
    transport: Any


@dataclass(frozen=True, kw_only=True)
class OpenAIConfig:
    """How an `OpenAIEngine` asks, checked; described there.

    Raises:
        ConfigError: An option can't be that.
    """

    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    max_tries: int = 4
    backoff_s: float = 0.2
    max_concurrency: int = 16
    image_size: int | None = 448
    proxy: str | None = None
    extra_body: Mapping[str, Any] | None = None
    transport: Any = None

    def __post_init__(self) -> None:
        if not self.timeout_s > 0 or self.max_concurrency < 1:
            raise ConfigError(
                f"Expected timeout_s > 0 and max_concurrency >= 1, got {self.timeout_s} and {self.max_concurrency}."
            )
        if self.proxy is not None and not self.proxy.startswith(("http://", "https://")):
            raise ConfigError(f"Expected proxy as an http(s) URL, got {self.proxy!r}.")
        if self.image_size is not None and (not isinstance(self.image_size, int) or self.image_size < 1):
            raise ConfigError(
                f"Expected image_size as a number of pixels >= 1 or None, got {self.image_size!r}."
            )
        object.__setattr__(self, "extra_body", dict(self.extra_body or {}))  # the caller's may change


class OpenAIEngine:
    """Sends each request as one chat completion, several at a time.

    Only failures that another try may mend are retried: no connection, a timeout, an overloaded server. The
    HTTP client is made on first use, so an engine is cheap to build and can be pickled before that.

    Example:
        >>> OpenAIEngine("http://localhost:8000/v1", "vlac-2b").describe()["model"]
        'vlac-2b'
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        **options: Unpack[OpenAIOptions],
    ) -> None:
        """Checks the arguments; connects to nothing.

        Args:
            base_url: URL up to and including the version, e.g. `http://host:8000/v1`.
            model: Name under which the server serves the checkpoint.
            api_key: Bearer token, if the server wants one.
            timeout_s: Deadline of one request with all its tries.
            max_tries: Tries of one request, the first included.
            backoff_s: Mean wait before the second try; doubles with every try, with random jitter.
            max_concurrency: Requests under way at once; the server forms batches of them.
            image_size: Frames are sent as squares of so many pixels, which is one tile for models of this
                family; None sends them as they are.
            proxy: URL of an HTTP proxy on the way to the server. Proxies named in the environment are not used: they
                are meant for the web, and would get the frames of a server next door.
            extra_body: Fields that only this server knows, added to every request.
            transport: An `httpx` transport, for tests.

        Raises:
            ConfigError: An argument is out of range or the URL is none.
            DependencyNotInstalled: httpx or Pillow is missing.
        """
        self._httpx = _import_httpx()
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"Expected base_url as an http(s) URL, e.g. http://host:8000/v1, got {base_url!r}."
            )
        if not model:
            raise ConfigError("Expected the name of a model that the server serves, got an empty text.")
        config = self._config = OpenAIConfig(**options)
        self._retries = RetryPolicy(
            max_tries=config.max_tries, backoff_s=config.backoff_s, deadline_s=config.timeout_s
        )
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._client: Any = None
        self._is_closed = False

    def generate(self, requests: Sequence[EngineRequest]) -> list[EngineReply]:
        """Answers every request, in order, greedily.

        The reply may go on after the number that a request asks for, as the model's does; `max_new_tokens`
        bounds it.

        Raises:
            ConfigError: A malformed request, a wrong key, or a model that the server does not know.
            CriticConnectionError, CriticTimeoutError, CriticOverloadedError: After the last try.
            CriticProtocolError: The server does not speak this API, e.g. gives no log-probabilities.
            CriticResponseError: A reply without tokens or with log-probabilities that are no numbers.
            CriticServerError: The server failed.
        """
        for request in requests:
            check_request(request)
        if not requests:
            return []
        bodies = self._bodies(requests)
        client = self._connect()
        if len(bodies) == 1:
            return [self._complete(client, bodies[0])]
        with ThreadPoolExecutor(min(self._config.max_concurrency, len(bodies))) as pool:
            futures = [pool.submit(self._complete, client, body) for body in bodies]
            try:
                return [future.result() for future in futures]
            except CriticError:
                for future in futures:
                    future.cancel()
                raise

    def describe(self) -> dict[str, Any]:
        """`name`, `model`, `device` and the URL; connects to nothing."""
        return {"name": "openai", "model": self._model, "device": "remote", "url": self._url}

    def sleep(self) -> None:
        """Does nothing: the memory is the server's."""

    def wake(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Closes the connections; safe to call twice."""
        self._is_closed = True
        if self._client is not None:
            self._client.close()
            self._client = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client": None, "_httpx": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_httpx": _import_httpx()})

    def _connect(self) -> Any:
        if self._is_closed:
            raise ConfigError("This OpenAIEngine is closed. Build another one.")
        if self._client is None:
            limits = self._httpx.Limits(max_connections=self._config.max_concurrency)
            headers = {"Authorization": f"Bearer {self._config.api_key}"} if self._config.api_key else {}
            self._client = self._httpx.Client(
                limits=limits,
                headers=headers,
                transport=self._config.transport,
                proxy=self._config.proxy,
                trust_env=False,
                verify=self._httpx.create_ssl_context(),  # reads SSL_CERT_FILE, which trust_env=False leaves out
            )
        return self._client

    def _bodies(self, requests: Sequence[EngineRequest]) -> list[dict[str, Any]]:
        """Request bodies; a frame that several requests show is compressed once."""
        urls: dict[bytes, str] = {}
        bodies = []
        for request in requests:
            digests = [frame_digest(frame) for frame in request.frames]
            for digest, frame in zip(digests, request.frames):
                if digest not in urls:
                    urls[digest] = png_data_url(frame, self._config.image_size)
            body = request_body(request, self._model, [urls[digest] for digest in digests])
            bodies.append({**body, **(self._config.extra_body or {})})
        return bodies

    def _complete(self, client: Any, body: dict[str, Any]) -> EngineReply:
        return call_with_retries(lambda left_s: read_reply(self._post(client, body, left_s)), self._retries)

    def _post(self, client: Any, body: dict[str, Any], left_s: float) -> Any:
        """One try; `left_s` bounds it."""
        httpx = self._httpx
        give_up_at = time.monotonic() + left_s
        try:
            with client.stream("POST", self._url, json=body, timeout=left_s) as response:
                content = self._read(response, give_up_at)
        except httpx.TimeoutException as e:
            raise CriticTimeoutError(
                f"No reply from {self._url} in {left_s:.1f} s ({type(e).__name__})."
            ) from e
        except httpx.UnsupportedProtocol as e:
            raise ConfigError(f"Expected base_url as an http(s) URL, got {self._url!r}: {e}.") from e
        except httpx.TransportError as e:
            raise CriticConnectionError(
                f"No connection to {self._url} ({type(e).__name__}: {e}). Is the server running?"
            ) from e
        text = content.decode("utf-8", errors="replace")
        if response.status_code != httpx.codes.OK:
            raise self._error(response, text[:_QUOTED_CHARS])
        try:
            return json.loads(text)
        except ValueError as e:
            raise CriticProtocolError(
                f"Expected JSON from {self._url}, got {text[:_QUOTED_CHARS]!r}. "
                "Is base_url an OpenAI-compatible server's?"
            ) from e

    def _read(self, response: Any, give_up_at: float) -> bytes:
        """The body; httpx bounds each wait but not their sum, nor the size."""
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            if time.monotonic() > give_up_at:
                raise CriticTimeoutError(f"The reply from {self._url} did not end in time.")
            if len(content) > _MAX_REPLY_BYTES:
                raise CriticProtocolError(
                    f"Expected at most {_MAX_REPLY_BYTES} bytes from {self._url}, got more."
                )
        return bytes(content)

    def _error(self, response: Any, text: str) -> Exception:
        """The error for a status other than 200."""
        status = response.status_code
        through = f" through the proxy {self._config.proxy}" if self._config.proxy else ""
        got = f"{self._url}{through} answered {status}: {text!r}."
        if status in (401, 403):
            return ConfigError(f"{got} Pass the server's api_key.")
        if status == 404:
            return ConfigError(f"{got} Check base_url and the model's name {self._model!r}.")
        if status in (429, 503):
            return CriticOverloadedError(got, _retry_after_s(response.headers.get("retry-after")))
        if status in (408, 504):
            return CriticTimeoutError(got)
        if status == 502:
            return CriticConnectionError(got)
        return CriticServerError(got) if status >= 500 else CriticProtocolError(got)


def _retry_after_s(text: str | None) -> float | None:
    """Seconds of a Retry-After header; its other form, a date, is ignored."""
    try:
        seconds = float(text) if text else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 <= seconds < float("inf") else None


def _import_httpx() -> Any:
    with needs("OpenAIEngine", "openai"):
        return importlib.import_module("httpx")
