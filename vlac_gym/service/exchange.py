"""The client's side of the protocol without any I/O: `Exchange`, driven by `RemoteCritic`.

An exchange is a generator: it yields an `HttpCall` and gets the reply (or has a `CriticError` thrown into
it), or yields a `Pause`. Retries, fail-over, version checks and the resending of frames live here, once.
"""

__all__ = ["Exchange", "HttpCall", "HttpReply", "Pause", "Steps"]

import logging
import os
import random
import socket
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, TypeVar

import numpy as np

from vlac_gym.errors import (
    CriticConnectionError,
    CriticError,
    CriticOverloadedError,
    CriticProtocolError,
    CriticResponseError,
    CriticTimeoutError,
    VlacGymError,
)
from vlac_gym.service.client_config import ClientConfig
from vlac_gym.service.decoding import decode_reply
from vlac_gym.service.known_frames import KnownFrames
from vlac_gym.service.messages import WireFormatError, pack, unpack
from vlac_gym.service.protocol import (
    CONTENT_TYPE,
    PROTOCOL_VERSION,
    EncodedFrame,
    FrameUpload,
    Limits,
    Pixels,
)
from vlac_gym.service.question import Question
from vlac_gym.service.wire_errors import MissingFramesError, decode_error
from vlac_gym.types import FloatArray

RETRIED = (CriticConnectionError, CriticTimeoutError, CriticOverloadedError)
_WAITING = (CriticOverloadedError,)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 10.0
_EARLIER_S = 0.5
_UPLOAD_SHARE = 0.9
"""Of a server's largest body: room for digests, tasks and msgpack's own bytes."""

_T = TypeVar("_T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HttpCall:
    """One request to make; the driver adds nothing but the connection."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes
    timeout_s: float


@dataclass(frozen=True)
class HttpReply:
    """What came back."""

    status: int
    body: bytes
    retry_after: str | None = None


@dataclass(frozen=True)
class Pause:
    """Time to wait before going on, in seconds."""

    seconds: float


Steps = Generator[HttpCall | Pause, HttpReply | None, _T]


@dataclass
class _Server:
    """What this client knows of one URL."""

    url: str
    known: KnownFrames = field(default_factory=KnownFrames)
    info: dict[str, Any] | None = None
    limits: Limits = field(default_factory=Limits)
    not_before: float = 0.0
    failures: int = 0


class Exchange:
    """One process's conversation with the servers; safe to use from several threads.

    Args:
        urls: Base URLs; the first that answers is kept until it fails.
        config: Deadlines, retries, encoding.
        clock: Monotonic seconds.
        jitter: Random number in [0, 1) for the pauses between attempts.
    """

    def __init__(
        self,
        urls: Sequence[str],
        config: ClientConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.retries = 0
        self.failovers = 0
        self.failures = 0
        self.bytes_sent = 0
        self.frames_sent = 0
        self._config = config
        self._servers = [_Server(url) for url in urls]
        self._current = 0
        self._critic_id: str | None = None
        self._clock, self._jitter = clock, jitter
        name = f"{socket.gethostname()[:24]}-{os.getpid()}-{random.SystemRandom().randrange(16**6):06x}"
        self._headers = {
            "accept": CONTENT_TYPE,
            "content-type": CONTENT_TYPE,
            "x-vlac-client": "".join(c if c.isalnum() or c in "._-" else "-" for c in name),
        }
        if config.token is not None:
            self._headers["authorization"] = f"Bearer {config.token}"

    @property
    def server_info(self) -> dict[str, Any] | None:
        """What the present server said of itself at first contact, or None before it."""
        return self._servers[self._current].info

    def ask(self, question: Question) -> Steps[FloatArray]:
        """Asks one question, in parts if the server's limits demand it."""
        if not question.items:
            return np.empty(0, np.float32)
        deadline = self._clock() + self._config.deadline_s
        limits = yield from self._retrying(self._get_limits, deadline)
        answers: list[FloatArray] = []
        for part in question.split(limits.max_frames):
            answer = yield from self._retrying(partial(self._ask_once, part), deadline)
            answers.append(answer)
        return np.concatenate(answers)

    def get_info(self) -> Steps[dict[str, Any]]:
        """Asks the present server what it is, now."""
        return (yield from self._retrying(self._check))

    def look(self) -> Steps[dict[str, Any]]:
        """`get_info` that waits for no lost server, only for one that answers that it is loading or busy."""
        for server in self._servers[:-1]:
            try:
                return (yield from self._retrying(self._check, only=server, retried=_WAITING))
            except RETRIED:
                continue
        return (yield from self._retrying(self._check, only=self._servers[-1], retried=_WAITING))

    def switch(self, action: str) -> Steps[None]:
        """`sleep` or `wake`, at every server; one that fails keeps no other from it, and is named at the end."""
        errors: list[VlacGymError] = []
        for server in self._servers:
            post = partial(self._post_switch, action)
            try:
                yield from self._retrying(post, only=server)
            except VlacGymError as e:
                errors.append(e)
        if errors:
            raise self._switch_error(action, errors)

    def _switch_error(self, action: str, errors: Sequence[VlacGymError]) -> VlacGymError:
        """What is to be raised for the servers that did not `sleep` or `wake`, of the first one's class."""
        first = errors[0]
        if len(self._servers) == 1:
            return first
        text = (
            f"Expected {len(self._servers)} critic servers to {action}, got {len(errors)} that did not: "
            f"{'; '.join(map(str, errors))} Mend that and call {action}() again; it changes nothing for those that did."
        )
        if isinstance(first, CriticOverloadedError):
            return CriticOverloadedError(text, first.retry_after_s)
        return type(first)(text)

    def _post_switch(self, action: str, server: _Server, timeout_s: float) -> Steps[None]:
        yield from self._call(server, "POST", f"/v1/{action}", b"", timeout_s)

    # Retries and fail-over

    def _retrying(
        self,
        attempt: Callable[[_Server, float], Steps[_T]],
        deadline: float | None = None,
        only: _Server | None = None,
        retried: tuple[type[CriticError], ...] = RETRIED,
    ) -> Steps[_T]:
        """Attempts until one succeeds, fails for good, or time or number run out; at `only` this server or at any."""
        if deadline is None:
            deadline = self._clock() + self._config.deadline_s
        for number in range(1, self._config.max_attempts + 1):
            server = only or self._pick()
            wait_s = server.not_before - self._clock()
            if wait_s > 0:
                yield Pause(min(wait_s, max(0.0, deadline - self._clock())))
            timeout_s = min(self._config.timeout_s, deadline - self._clock())
            try:
                if timeout_s <= 0:
                    raise CriticTimeoutError(f"{server.url} had no time left.")
                answer = yield from attempt(server, timeout_s)
            except RETRIED as e:
                self._failed(server, e)
                following = only or self._pick()
                is_last = number == self._config.max_attempts or following.not_before >= deadline
                if is_last or timeout_s <= 0 or not isinstance(e, retried):
                    raise self._final(e, number, self._servers if only is None else [only]) from e
                self.retries += 1
                self.failovers += following is not server
                logger.warning(
                    "critic: %s (attempt %d of %d); next at %s in %.1f s",
                    e,
                    number,
                    self._config.max_attempts,
                    following.url,
                    max(0.0, following.not_before - self._clock()),
                )
            else:
                server.failures = 0
                return answer
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _pick(self) -> _Server:
        """The present server, or the next one that may be asked, or the one that may be asked first."""
        now = self._clock()
        order = [(self._current + i) % len(self._servers) for i in range(len(self._servers))]
        ready = [i for i in order if self._servers[i].not_before <= now]
        self._current = ready[0] if ready else min(order, key=lambda i: self._servers[i].not_before)
        return self._servers[self._current]

    def _failed(self, server: _Server, error: CriticError) -> None:
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**server.failures) * (0.5 + 0.5 * self._jitter())
        if isinstance(error, CriticOverloadedError) and error.retry_after_s is not None:
            pause_s = max(pause_s, error.retry_after_s)
        self.failures += 1
        server.failures += 1
        server.not_before = self._clock() + pause_s
        if isinstance(error, CriticConnectionError):
            # It may have restarted: whether it still holds a frame is known again after its next reply.
            server.known.clear()

    def _final(self, error: CriticError, attempts: int, asked: Sequence[_Server]) -> CriticError:
        where = ", ".join(server.url for server in asked)
        text = (
            f"{error} (attempt {attempts} of {self._config.max_attempts}; servers: {where}). "
            "Is `vlac-gym serve` running? See /readyz."
        )
        if isinstance(error, CriticOverloadedError):
            return CriticOverloadedError(text, error.retry_after_s)
        return type(error)(text)

    # One attempt

    def _get_limits(self, server: _Server, timeout_s: float) -> Steps[Limits]:
        if server.info is None:
            yield from self._check(server, timeout_s)
        return server.limits

    def _check(self, server: _Server, timeout_s: float) -> Steps[dict[str, Any]]:
        """First contact: the same protocol, and the same critic as everywhere else."""
        reply = yield from self._call(server, "GET", "/v1/info", b"", timeout_s)
        try:
            info = unpack(reply.body)
        except WireFormatError as e:
            raise CriticProtocolError(f"{server.url}/v1/info answered what is no critic server's: {e}") from e
        if info.get("protocol") != PROTOCOL_VERSION:
            raise CriticProtocolError(
                f"{server.url} speaks protocol {info.get('protocol')!r}, this client {PROTOCOL_VERSION}. "
                "Install the same vlac-gym on both sides."
            )
        self._check_critic(server, str(info.get("critic")))
        limits = info.get("limits")
        names = {spec.name for spec in fields(Limits)}
        if isinstance(limits, dict):
            server.limits = Limits(**{name: limits[name] for name in names & limits.keys()})
        server.info = info
        return info

    def _check_critic(self, server: _Server, critic_id: str) -> None:
        if self._critic_id is None:
            self._critic_id = critic_id
        elif self._critic_id != critic_id:
            raise CriticProtocolError(
                f"The critic at {server.url} is {critic_id}, but earlier answers came from {self._critic_id}: "
                "rewards of two critics would mix. Serve the same critic everywhere, or make a new client."
            )

    def _ask_once(self, question: Question, server: _Server, timeout_s: float) -> Steps[FloatArray]:
        deadline = self._clock() + timeout_s
        if server.info is None:
            yield from self._check(server, timeout_s)
        attached = server.known.unknown_of(question.digests)
        for _ in range(3):
            try:
                return (yield from self._post_question(server, question, attached, deadline))
            except MissingFramesError as e:
                server.known.forget(e.digests)
                # One server keeps what just came. Replicas behind one URL hold different frames, and the
                # next answer may be another's: send all.
                attached = list(question.digests if server.known.instances > 1 else e.digests)
        raise CriticOverloadedError(
            f"{server.url} lost frames as fast as they were sent: its frame store holds less than one request. "
            "Raise --frame-store-mb."
        )

    def _post_question(
        self, server: _Server, question: Question, attached: Sequence[bytes], deadline: float
    ) -> Steps[FloatArray]:
        encoded = {digest: question.encoded(digest) for digest in attached}
        *ahead, beside = _bodies(encoded, server.limits)
        for part in ahead:
            yield from self._upload(server, part, deadline)
        timeout_s = max(0.001, deadline - self._clock())
        # A little earlier than the client gives up, so that the server's reason arrives and not a silence.
        earlier_s = min(timeout_s - min(_EARLIER_S, 0.1 * timeout_s), server.limits.max_deadline_s)
        body = pack(question.to_request(beside, max(1, int(1000 * earlier_s))))
        self.frames_sent += len(beside)
        path = f"/v1/{question.operation}"
        reply = yield from self._call(server, "POST", path, body, timeout_s)
        try:
            answer = decode_reply(reply.body)
        except WireFormatError as e:
            raise CriticProtocolError(f"{server.url}{path}: {e}") from e
        self._check_critic(server, answer.critic)
        server.known.add(answer.instance, question.digests)
        return _checked(answer.numbers, question, server.url)

    def _upload(self, server: _Server, part: dict[bytes, EncodedFrame], deadline: float) -> Steps[None]:
        timeout_s = max(0.001, deadline - self._clock())
        body = pack(FrameUpload(tuple(part), Pixels.of(dict(enumerate(part.values())))))
        self.frames_sent += len(part)
        yield from self._call(server, "POST", "/v1/frames", body, timeout_s)

    def _call(
        self, server: _Server, method: str, path: str, body: bytes, timeout_s: float
    ) -> Steps[HttpReply]:
        url = server.url + path
        self.bytes_sent += len(body)
        reply = yield HttpCall(method, url, self._headers, body, timeout_s)
        if reply is None:
            raise AssertionError("the driver sends a reply for every call")
        if reply.status != 200:
            raise decode_error(reply.status, reply.body, url, reply.retry_after)
        return reply


def _bodies(frames: Mapping[bytes, EncodedFrame], limits: Limits) -> list[dict[bytes, EncodedFrame]]:
    """Frames in parts that fit into one body each, by its size and by what the server unpacks from it.

    The last part, which may be empty, goes beside the question.
    """
    room = int(_UPLOAD_SHARE * limits.max_body_bytes)
    parts: list[dict[bytes, EncodedFrame]] = [{}]
    body_bytes = decoded_bytes = 0
    for digest, frame in frames.items():
        body_bytes += len(frame.data)
        decoded_bytes += frame.decoded_bytes
        if parts[-1] and (body_bytes > room or decoded_bytes > limits.max_decoded_bytes):
            parts.append({})
            body_bytes, decoded_bytes = len(frame.data), frame.decoded_bytes
        parts[-1][digest] = frame
    return parts


def _checked(values: FloatArray, question: Question, url: str) -> FloatArray:
    low = -1.0 if question.operation == "progress" else 0.0
    if len(values) != question.items or not np.all((values >= low) & (values <= 1.0)):
        raise CriticResponseError(
            f"Expected {question.operation} of {url} as {question.items} numbers in [{low:g}, 1], "
            f"got {len(values)}: {values[:8]}."
        )
    return values
