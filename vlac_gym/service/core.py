"""One critic, its frames and its queue behind `POST` bodies: `CriticService`, `ServiceConfig`. No HTTP here."""

__all__ = ["CriticService", "ServiceConfig"]

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TypeVar

from vlac_gym import __version__
from vlac_gym.critic.base import BaseCritic, Critic
from vlac_gym.critic.engines.cuda_memory import cuda_memory_bytes
from vlac_gym.critic.wrapper import adapted
from vlac_gym.errors import ConfigError
from vlac_gym.service.batching import Batcher
from vlac_gym.service.decoding import decode_request, decode_upload
from vlac_gym.service.frame_codec import decode_frame
from vlac_gym.service.frame_store import FrameStore
from vlac_gym.service.jobs import Job
from vlac_gym.service.metrics import ServiceMetrics
from vlac_gym.service.protocol import (
    PROTOCOL_VERSION,
    FrameUpload,
    Info,
    Limits,
    Operation,
    ProgressRequest,
    Reply,
    Request,
    SuccessProbRequest,
)
from vlac_gym.service.wire_errors import ServiceError
from vlac_gym.types import CriticInfo, Frame

_T = TypeVar("_T")

_INLINE_BYTES = 2**16
"""Bodies up to this size are decoded on the event loop: a thread's hand-over costs more than the work."""


@dataclass(frozen=True)
class ServiceConfig:
    """How a service batches and what it accepts.

    Attributes:
        max_batch: Items in one call of the critic.
        max_wait_ms: How long the first item of a batch waits for company.
        max_queue: Items that may wait; beyond it requests get 503.
        frame_store_bytes: Bytes of frames kept for later requests.
        body_timeout_s: Longest that a request's body may take to arrive.
        replicas: How many processes answer at one URL; only a lone one can be told to sleep, since a
            request reaches one of them and the others would keep their memory.
        token: Bearer token that every request but the health checks must carry, or None.
        limits: Sizes of requests.
    """

    max_batch: int = 64
    max_wait_ms: float = 4.0
    max_queue: int = 8192
    frame_store_bytes: int = 2 * 2**30
    body_timeout_s: float = 60.0
    replicas: int = 1
    token: str | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_queue", "replicas", "frame_store_bytes", "body_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Expected {name} above 0, got {getattr(self, name)!r}.")
        if not self.max_wait_ms >= 0:
            raise ConfigError(f"Expected max_wait_ms of at least 0, got {self.max_wait_ms!r}.")
        if self.token is not None and len(self.token) < 8:
            raise ConfigError("Expected a token of at least 8 characters; `openssl rand -hex 32` makes one.")


class CriticService:
    """What a server does with the bytes it gets.

    Args:
        make_critic: Makes any critic that judges pictures alone; called by `load`, on the critic's thread.
        config: Sizes and times.

    Attributes:
        instance: Random name of this process; a client that sees another one resends its frames.
        critic_id: The critic's fingerprint; empty before it is loaded.
        load_error: Why the critic could not be loaded, or None.
        is_draining: True once a shutdown began; new questions are refused.
        requests_in_work: Questions being read or judged now.
    """

    def __init__(self, make_critic: Callable[[], Critic], config: ServiceConfig) -> None:
        self.config = config
        self.instance = secrets.token_hex(8)
        self.critic_id = ""
        self.metrics = ServiceMetrics()
        self.frames = FrameStore(config.frame_store_bytes)
        self.batcher = Batcher(
            self.metrics,
            max_batch=config.max_batch,
            max_wait_s=config.max_wait_ms / 1000,
            max_queue=config.max_queue,
        )
        self.load_error: BaseException | None = None
        self.is_draining = False
        self.requests_in_work = 0
        self._make_critic = make_critic
        self._info: CriticInfo | None = None
        self.metrics.read_from(frame_bytes=lambda: self.frames.held_bytes, gpu_bytes=cuda_memory_bytes)

    @property
    def is_ready(self) -> bool:
        """Loaded, awake and not shutting down."""
        return self.batcher.state == "awake" and not self.is_draining

    async def load(self) -> None:
        """Makes the critic; questions that come meanwhile wait up to their deadline.

        Raises:
            ConfigError: The critic reads the simulator's state, which no request carries.
            Exception: Whatever making it raised; kept in `load_error` too.
        """
        loading = asyncio.create_task(self.batcher.start(self._load_critic), name="load critic")
        await asyncio.wait([loading])
        self.load_error = None if loading.cancelled() else loading.exception()
        loading.result()

    def _load_critic(self) -> BaseCritic:
        critic = adapted(self._make_critic())
        info = critic.describe()
        if info.is_privileged:
            critic.close()
            raise ConfigError(
                f"Critic {info.name!r} reads the simulator's state, which no request carries, so it can't be "
                "served. Give it to the wrapper in the simulator's process instead."
            )
        critic.warm_up()
        self._info = info
        self.critic_id = info.fingerprint
        return critic

    async def judge(self, operation: Operation, body: bytes, client: str) -> Reply:
        """Answers one request.

        Raises:
            WireFormatError: The body is not a request.
            ServiceError: Frames are missing, the queue is full, the deadline passed, or the critic failed.
        """
        arrived_at = asyncio.get_running_loop().time()
        decode = partial(_decode_request, operation, body, self.config.limits)
        request, sent = await _off_loop(decode, len(body))
        frames = self._resolve(request, sent)
        deadline = arrived_at + request.deadline_ms / 1000
        results = await self.batcher.submit(_jobs(request, frames, client, deadline))
        return Reply(
            values=b"".join(result.values.astype("<f4").tobytes() for result in results),
            instance=self.instance,
            critic=self.critic_id,
            queue_ms=1000 * max((result.queue_s for result in results), default=0.0),
            model_ms=1000 * max((result.model_s for result in results), default=0.0),
            batch=max((result.batch for result in results), default=0),
            protocol=PROTOCOL_VERSION,
        )

    async def store_frames(self, body: bytes) -> int:
        """Keeps frames for later requests; returns how many came.

        Raises:
            WireFormatError: The body is not an upload of frames.
        """
        sent = await _off_loop(partial(_decode_upload, body, self.config.limits), len(body))
        self.frames.put(sent)
        return len(sent)

    def describe(self) -> Info:
        """What `/v1/info` answers.

        Raises:
            ServiceError: The critic is not loaded yet.
        """
        info = self._info
        if info is None:
            raise self.batcher.unavailable()
        return Info(
            protocol=PROTOCOL_VERSION,
            instance=self.instance,
            critic=self.critic_id,
            state="shutting_down" if self.is_draining else self.batcher.state,
            info={
                "name": info.name,
                "model": info.model,
                "prompt_version": info.prompt_version,
                "device": info.device,
                "details": info.details,
                "fingerprint": info.fingerprint,
                "knows": asdict(info.knows),
                "inputs": list(info.inputs),
            },
            limits=self.config.limits,
            max_batch=self.config.max_batch,
            frame_store_bytes=self.config.frame_store_bytes,
            gpu_memory_bytes=cuda_memory_bytes(),
            server_version=__version__,
        )

    def _resolve(self, request: Request, sent: dict[bytes, Frame]) -> list[Frame]:
        """Every frame of the request, from what it brought and what is stored."""
        self.frames.put(sent)
        named = [digest for digest in request.digests if digest not in sent]
        found, missing = self.frames.take(named)
        self.metrics.frame_hits.inc(len(found))
        self.metrics.frame_misses.inc(len(missing))
        if missing:
            raise ServiceError(
                "missing_frames",
                f"{len(missing)} of {len(request.digests)} frames are not here; send their pixels.",
                missing=missing,
            )
        return [sent[d] if d in sent else found[d] for d in request.digests]


async def _off_loop(decode: Callable[[], _T], body_bytes: int) -> _T:
    if body_bytes <= _INLINE_BYTES:
        return decode()
    return await asyncio.to_thread(decode)


def _jobs(request: Request, frames: Sequence[Frame], client: str, deadline: float) -> list[Job]:
    """One job for the whole request, or one for each of its episodes."""

    def named(places: Sequence[int]) -> list[Frame]:
        return [frames[place] for place in places]

    if isinstance(request, SuccessProbRequest):
        return [Job(client, "success_prob", named(request.frames), request.tasks, deadline)]
    references, key = None, None
    if request.references is not None:
        references = named(request.references)
        key = tuple(request.digests[place] for place in request.references)
    if isinstance(request, ProgressRequest):
        before, after = named(request.before), named(request.after)
        return [Job(client, "progress", before, request.tasks, deadline, after, references, key)]
    parts = zip(request.episodes, request.tasks, strict=True)
    return [
        Job(client, "value", named(places), [task], deadline, (), references, key) for places, task in parts
    ]


def _decode_request(operation: Operation, body: bytes, limits: Limits) -> tuple[Request, dict[bytes, Frame]]:
    request = decode_request(operation, body, limits)
    return request, _decoded(request)


def _decode_upload(body: bytes, limits: Limits) -> dict[bytes, Frame]:
    return _decoded(decode_upload(body, limits))


def _decoded(message: Request | FrameUpload) -> dict[bytes, Frame]:
    """Digest -> frame, of the frames that a message attaches."""
    named = ((message.digests[one.index], one.frame) for one in message.pixels)
    return {digest: decode_frame(digest, frame) for digest, frame in named}
