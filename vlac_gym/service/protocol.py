"""The critic service's wire format, version 1: every message as one struct.

These structs are the format's only statement: they encode it, refuse what breaks it (see `decoding`), and
describe it in `/openapi.json`. A request names its frames by digest in `digests` and attaches, in `pixels`,
only those that the server does not have; everything else refers to frames by their place in `digests`.
There is no pickle and no extension type: what is not in a struct is refused.

Public names: `SuccessProbRequest`, `ProgressRequest`, `ValueRequest`, `FrameUpload`, `Reply`, `Stored`,
`State`, `Info`, `ErrorReply`, `ErrorDetail`; their parts `Pixels` and `EncodedFrame`; `Limits`.
"""

__all__ = [
    "BatcherState",
    "CONTENT_TYPE",
    "DIGEST_BYTES",
    "OPERATIONS",
    "PROTOCOL_VERSION",
    "REQUESTS",
    "EncodedFrame",
    "ErrorDetail",
    "ErrorReply",
    "FrameUpload",
    "Info",
    "Limits",
    "Operation",
    "Pixels",
    "ProgressRequest",
    "Reply",
    "Request",
    "State",
    "Stored",
    "SuccessProbRequest",
    "ValueRequest",
]

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.service.client_config import Encoding
from vlac_gym.types import FloatArray

with needs("A critic server's client", "client"):
    from msgspec import UNSET, Meta, Struct, UnsetType

PROTOCOL_VERSION: Literal[1] = 1
CONTENT_TYPE = "application/msgpack"
DIGEST_BYTES = 16

Operation = Literal["success_prob", "progress", "value"]
BatcherState = Literal["loading", "awake", "asleep", "closed"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)


@dataclass(frozen=True)
class Limits:
    """What a server accepts; it tells them in `/v1/info`, so that a client can keep to them.

    Attributes:
        max_body_bytes: Size of one request.
        max_frames: Distinct frames, and judged items, of one request.
        max_frame_pixels: Height times width of one frame.
        max_decoded_bytes: All frames of one request after decompression.
        max_task_chars: Length of one task text.
        max_deadline_s: Longest that one request may wait.
        max_concurrent_requests: Requests in work at one time, over all clients.
        max_inflight_bytes: Bodies of all requests in work, together.
    """

    max_body_bytes: int = 128 * 2**20
    max_frames: int = 2048
    max_frame_pixels: int = 4096 * 4096
    max_decoded_bytes: int = 512 * 2**20
    max_task_chars: int = 4096
    max_deadline_s: float = 600.0
    max_concurrent_requests: int = 512
    max_inflight_bytes: int = 2**30

    def __post_init__(self) -> None:
        for spec in fields(self):
            limit = getattr(self, spec.name)
            if not limit > 0:
                raise ConfigError(f"Expected {spec.name} above 0, got {limit!r}.")


# Values

_Digest = Annotated[
    bytes,
    Meta(
        min_length=DIGEST_BYTES,
        max_length=DIGEST_BYTES,
        description=f"BLAKE2b, {DIGEST_BYTES} bytes (hex in JSON).",
    ),
]
_Digests = tuple[_Digest, ...]
_Place = Annotated[int, Meta(ge=0, description="Place in `digests`.")]
_Places = tuple[_Place, ...]
_Side = Annotated[int, Meta(ge=1, le=2**16)]
_Tasks = Annotated[tuple[str, ...], Meta(description="One text per frame, pair or episode.")]
_Milliseconds = Annotated[int, Meta(ge=1, description="How long the client waits.")]


class EncodedFrame(NamedTuple):
    """One frame on its way: `height` x `width` x 3 as `raw` bytes, or as a PNG or JPEG file."""

    encoding: Encoding
    height: int
    width: int
    data: bytes

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the frame after decompression."""
        return self.height * self.width * 3


class _Strict(Struct, frozen=True, forbid_unknown_fields=True):
    """A map with exactly these keys, in this order where we write it."""


class _Message(_Strict, frozen=True, tag_field="protocol", tag=PROTOCOL_VERSION):
    """One body; `protocol` is its first field."""


class Pixels(_Strict, frozen=True):
    """One frame that is attached, by its place in `digests`."""

    index: _Place
    encoding: Encoding
    height: _Side
    width: _Side
    data: Annotated[bytes, Meta(description="Pixels row by row, RGB; or a file.")]

    @classmethod
    def of(cls, frames: Mapping[int, EncodedFrame]) -> tuple[Self, ...]:
        """Frames by their places, ready to be sent."""
        return tuple(cls(index, *frame) for index, frame in frames.items())

    @property
    def frame(self) -> EncodedFrame:
        """The frame without its place."""
        return EncodedFrame(self.encoding, self.height, self.width, self.data)


_Attached = Annotated[tuple[Pixels, ...], Meta(description="Frames that the server may lack.")]


# Requests


class FrameUpload(_Message, frozen=True):
    """The body of `POST /v1/frames`: frames for later requests, each digest with its pixels."""

    digests: _Digests
    pixels: _Attached


class _Question(_Message, frozen=True):
    deadline_ms: _Milliseconds
    digests: _Digests
    pixels: _Attached


class SuccessProbRequest(_Question, frozen=True):
    """The body of `POST /v1/success_prob`."""

    frames: _Places
    tasks: _Tasks


class ProgressRequest(_Question, frozen=True):
    """The body of `POST /v1/progress`."""

    before: _Places
    after: _Places
    tasks: _Tasks
    references: _Places | None


class ValueRequest(_Question, frozen=True):
    """The body of `POST /v1/value`."""

    episodes: tuple[_Places, ...]
    tasks: _Tasks
    references: _Places | None


Request = SuccessProbRequest | ProgressRequest | ValueRequest
REQUESTS: dict[Operation, type[Request]] = {
    "success_prob": SuccessProbRequest,
    "progress": ProgressRequest,
    "value": ValueRequest,
}


# Replies


class Reply(_Strict, frozen=True):
    """The critic's answer."""

    values: Annotated[bytes, Meta(description="Little-endian float32, one per frame or pair, in order.")]
    instance: Annotated[str, Meta(description="Random name of the process, which alone knows its frames.")]
    critic: Annotated[str, Meta(description="Fingerprint of the critic.")]
    queue_ms: Annotated[float, Meta(description="Wait before the model.")]
    model_ms: Annotated[float, Meta(description="Time in the model.")]
    batch: Annotated[int, Meta(description="Items in the largest batch that the request took part in.")]
    protocol: Literal[1]

    @property
    def numbers(self) -> FloatArray:
        """`values` as float32 (N,)."""
        return np.frombuffer(self.values, dtype="<f4").astype(np.float32)


class Stored(_Message, frozen=True):
    """The answer to `POST /v1/frames`."""

    stored: int
    instance: str


class State(_Message, frozen=True):
    """The answer to `POST /v1/sleep` and `/v1/wake`."""

    state: BatcherState
    has_sleep: Annotated[bool, Meta(description="False if the critic holds no such memory.")]


class Info(Struct, frozen=True):
    """The answer to `GET /v1/info`; a client reads what it knows of another version's."""

    protocol: int
    instance: str
    critic: str
    state: BatcherState | Literal["shutting_down"]
    info: Annotated[dict[str, Any], Meta(description="The critic's own description.")]
    limits: Limits
    max_batch: int
    frame_store_bytes: int
    gpu_memory_bytes: Annotated[float, Meta(description="Held by torch in this process; 0 without a GPU.")]
    server_version: str


class ErrorDetail(Struct, frozen=True):
    """What went wrong; `reason` is a key of `wire_errors.ERROR_REASONS`, which gives the `type` too."""

    type: str
    reason: str
    message: str
    request_id: str
    retry_after_s: float | UnsetType = UNSET
    missing: Annotated[_Digests, Meta(description="Frames to send.")] | UnsetType = UNSET


class ErrorReply(_Message, frozen=True):
    """The body of a reply with a status other than 200."""

    error: ErrorDetail
    instance: str
