"""The critic service's wire format, version 1: every message as one struct, and bytes <-> checked structs.

These structs are the format's only statement: they encode it, refuse what breaks it, and describe it in
`/openapi.json`. A request names its frames by digest in `digests` and attaches, in `pixels`, only those that
the server does not have; everything else refers to frames by their place in `digests`. There is no pickle
and no extension type: what is not in a struct is refused.

Public names: the messages `SuccessProbRequest`, `ProgressRequest`, `ValueRequest`, `FrameUpload`, `Reply`,
`Stored`, `State`, `Info`, `ErrorReply`, `ErrorDetail`; their parts `Pixels` and `EncodedFrame`; `Limits`;
`decode_request`, `decode_upload`, `decode_reply`.
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
    "WireFormatError",
    "decode_reply",
    "decode_request",
    "decode_upload",
]

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.service.client_config import Encoding
from vlac_gym.service.messages import WireFormatError, fit, shown, unpack
from vlac_gym.types import FloatArray

with needs("A critic server's client", "client"):
    from msgspec import UNSET, Meta, Struct, UnsetType

PROTOCOL_VERSION = 1
CONTENT_TYPE = "application/msgpack"
DIGEST_BYTES = 16

Operation = Literal["success_prob", "progress", "value"]
BatcherState = Literal["loading", "awake", "asleep", "closed"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

_ITEMS_PER_FRAME = 16
"""A frame costs a digest, a `pixels` entry of 5 fields, and a place in up to three lists and the tasks."""


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

    def as_wire(self) -> dict[str, float]:
        """The limits by name."""
        return asdict(self)


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
    protocol: Literal[1] = 1

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


# Bytes -> checked messages


def decode_request(operation: Operation, body: bytes, limits: Limits) -> Request:
    """Reads and checks the body of `POST /v1/{operation}`; frames stay encoded.

    Raises:
        WireFormatError: A rule of the format or a limit is broken; `reason` says which.
    """
    request = fit(REQUESTS[operation], _read(body, limits), f"a {operation} request")
    longest_ms = int(limits.max_deadline_s * 1000)
    if request.deadline_ms > longest_ms:
        raise WireFormatError(
            f"Expected deadline_ms as an integer in [1, {longest_ms}], got {request.deadline_ms}."
        )
    _check_frames(request, limits)
    count = len(request.digests)
    if isinstance(request, ValueRequest):
        _check_episodes(request.episodes, count, limits)
        items = len(request.episodes)
    elif isinstance(request, ProgressRequest):
        _check_places(request.before, "before", count, limits)
        _check_places(request.after, "after", count, limits)
        items = len(request.before)
        if len(request.after) != items:
            raise WireFormatError(
                f"Expected one after per before, got {items} before, {len(request.after)} after."
            )
    else:
        _check_places(request.frames, "frames", count, limits)
        items = len(request.frames)
    if not isinstance(request, SuccessProbRequest) and request.references is not None:
        _check_places(request.references, "references", count, limits)
    _check_tasks(request.tasks, limits)
    if len(request.tasks) != items:
        raise WireFormatError(f"Expected {items} tasks, one for each item, got {len(request.tasks)}.")
    return request


def decode_upload(body: bytes, limits: Limits) -> FrameUpload:
    """Reads and checks the body of `POST /v1/frames`: as many pixels as digests.

    Raises:
        WireFormatError: As for `decode_request`.
    """
    upload = fit(FrameUpload, _read(body, limits), "an upload of frames")
    _check_frames(upload, limits)
    if len(upload.pixels) != len(upload.digests):
        raise WireFormatError(
            f"Expected pixels for all {len(upload.digests)} digests, got {len(upload.pixels)}."
        )
    return upload


def decode_reply(body: bytes) -> Reply:
    """Reads and checks a reply with status 200.

    Raises:
        WireFormatError: The reply is not of this protocol.
    """
    message = unpack(body)
    _check_version(message)
    reply = fit(Reply, message, "a reply")
    if len(reply.values) % 4:
        raise WireFormatError("Expected values as bytes of float32 numbers.")
    return reply


def _read(body: bytes, limits: Limits) -> dict[str, Any]:
    message = unpack(body, _ITEMS_PER_FRAME * limits.max_frames)
    _check_version(message)
    return message


def _check_version(message: Mapping[str, Any]) -> None:
    version = message.get("protocol")
    if type(version) is not int or version != PROTOCOL_VERSION:
        raise WireFormatError(
            f"Expected protocol {PROTOCOL_VERSION}, got {shown(version)}. Install the same vlac-gym on both sides.",
            "protocol_version",
        )


def _check_count(items: Sequence[object], where: str, most: int) -> None:
    if len(items) > most:
        raise WireFormatError(f"Expected at most {most} {where}, got {len(items)}.", "too_large")


def _check_places(places: Sequence[int], where: str, count: int, limits: Limits) -> None:
    _check_count(places, where, limits.max_frames)
    if places and max(places) >= count:
        i = next(i for i, place in enumerate(places) if place >= count)
        raise WireFormatError(f"Expected {where}[{i}] as an integer in [0, {count - 1}], got {places[i]}.")


def _check_episodes(episodes: Sequence[Sequence[int]], count: int, limits: Limits) -> None:
    _check_count(episodes, "episodes", limits.max_frames)
    for i, places in enumerate(episodes):
        _check_places(places, f"episodes[{i}]", count, limits)
    if (total := sum(map(len, episodes))) > limits.max_frames:
        raise WireFormatError(
            f"Expected at most {limits.max_frames} frames in all, got {total}.", "too_large"
        )


def _check_tasks(tasks: Sequence[str], limits: Limits) -> None:
    _check_count(tasks, "tasks", limits.max_frames)
    for i, task in enumerate(tasks):
        _check_count(task, f"characters in tasks[{i}]", limits.max_task_chars)


def _check_frames(message: Request | FrameUpload, limits: Limits) -> None:
    digests, pixels = message.digests, message.pixels
    _check_count(digests, "digests", limits.max_frames)
    if len(set(digests)) != len(digests):
        raise WireFormatError("Expected distinct digests, got one twice.")
    _check_places([one.index for one in pixels], "the indices of pixels", len(digests), limits)
    if len({one.index for one in pixels}) != len(pixels):
        raise WireFormatError("Expected each frame once in pixels, got one index twice.")
    for i, one in enumerate(pixels):
        _check_pixels(one, f"pixels[{i}]", limits)
    decoded_bytes = sum(one.frame.decoded_bytes for one in pixels)
    if decoded_bytes > limits.max_decoded_bytes:
        raise WireFormatError(
            f"Expected at most {limits.max_decoded_bytes} bytes of decoded frames, got {decoded_bytes}.",
            "too_large",
        )


def _check_pixels(one: Pixels, where: str, limits: Limits) -> None:
    if one.height * one.width > limits.max_frame_pixels:
        raise WireFormatError(
            f"Expected {where} of at most {limits.max_frame_pixels} pixels, got {one.height} x {one.width}.",
            "too_large",
        )
    if one.encoding == "raw" and len(one.data) != one.frame.decoded_bytes:
        raise WireFormatError(
            f"Expected {one.frame.decoded_bytes} raw bytes in {where}, got {len(one.data)}."
        )
