"""The critic service's wire format, version 1: bytes <-> checked values. numpy and msgpack only.

A request names its frames by digest in `digests` and attaches, in `pixels`, only those that the server
does not have; everything else refers to frames by their place in `digests`. There is no pickle and no
extension type: what is not in this module's tables is refused.

Public names: `JudgeRequest`, `JudgeReply`, `EncodedFrame`, `Limits`, `encode_request`, `decode_request`,
`encode_frames`, `decode_frames`, `encode_reply`, `decode_reply`, `pack`, `unpack`.
"""

__all__ = [
    "CONTENT_TYPE",
    "DIGEST_BYTES",
    "MALFORMED",
    "OPERATIONS",
    "PROTOCOL_VERSION",
    "EncodedFrame",
    "JudgeReply",
    "JudgeRequest",
    "Limits",
    "Operation",
    "WireFormatError",
    "decode_frames",
    "decode_reply",
    "decode_request",
    "encode_frames",
    "encode_reply",
    "encode_request",
    "pack",
    "unpack",
]

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import accumulate, chain
from typing import Any, Literal, get_args

import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.service.client_config import ENCODINGS, Encoding
from vlac_gym.service.messages import (
    MALFORMED,
    WireFormatError,
    check_integer,
    check_keys,
    check_list,
    pack,
    shown,
    unpack,
)
from vlac_gym.types import FloatArray

PROTOCOL_VERSION = 1
CONTENT_TYPE = "application/msgpack"
DIGEST_BYTES = 16

Operation = Literal["success_prob", "progress", "value"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

_FIELDS: dict[Operation, frozenset[str]] = {
    "success_prob": frozenset({"protocol", "deadline_ms", "digests", "pixels", "frames", "tasks"}),
    "progress": frozenset(
        {"protocol", "deadline_ms", "digests", "pixels", "before", "after", "tasks", "references"}
    ),
    "value": frozenset({"protocol", "deadline_ms", "digests", "pixels", "episodes", "tasks", "references"}),
}
"""Operation -> the keys its request has: all of them, and no others."""

_UPLOAD_FIELDS = frozenset({"protocol", "digests", "pixels"})
_PIXEL_FIELDS = frozenset({"index", "encoding", "height", "width", "data"})
_REPLY_FIELDS = frozenset({"protocol", "values", "instance", "critic", "queue_ms", "model_ms", "batch"})


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


@dataclass(frozen=True)
class EncodedFrame:
    """One frame on the wire: `height` x `width` x 3 as `raw` bytes, or as a PNG or JPEG file."""

    encoding: Encoding
    height: int
    width: int
    data: bytes

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the frame after decompression."""
        return self.height * self.width * 3


@dataclass(frozen=True)
class JudgeRequest:
    """One question to the critic. Frames are places in `digests`.

    Attributes:
        operation: Which question.
        digests: Distinct frame digests of 16 bytes.
        pixels: Place in `digests` -> the frame, for frames that the server may lack.
        frames: The frames judged; the frames before, for `progress`; episode after episode, for `value`.
        lengths: Frames of each episode, for `value`; else empty.
        after: The frames after, for `progress`; else empty.
        tasks: One text per frame, pair or episode.
        references: Frames of a successful episode, or None.
        deadline_ms: How long the client waits, in milliseconds.
    """

    operation: Operation
    digests: tuple[bytes, ...]
    frames: tuple[int, ...]
    tasks: tuple[str, ...]
    after: tuple[int, ...] = ()
    references: tuple[int, ...] | None = None
    lengths: tuple[int, ...] = ()
    pixels: Mapping[int, EncodedFrame] = field(default_factory=dict)
    deadline_ms: int = 30_000


@dataclass(frozen=True)
class JudgeReply:
    """The critic's answer.

    Attributes:
        values: float32 (N,).
        instance: Random name of the server process; frames it was sent are known to it alone.
        critic: Fingerprint of the critic's name, model and prompt version.
        queue_ms: Wait before the model, in milliseconds.
        model_ms: Time in the model, in milliseconds.
        batch: Items in the largest batch that this request took part in.
    """

    values: FloatArray
    instance: str
    critic: str
    queue_ms: float
    model_ms: float
    batch: int


def encode_request(request: JudgeRequest) -> bytes:
    """The body of `POST /v1/{operation}`."""
    message: dict[str, Any] = {
        "protocol": PROTOCOL_VERSION,
        "deadline_ms": request.deadline_ms,
        "digests": list(request.digests),
        "pixels": _pixels_to_wire(request.pixels),
    }
    frames, references = list(request.frames), None
    if request.references is not None:
        references = list(request.references)
    if request.operation == "success_prob":
        message |= {"frames": frames, "tasks": list(request.tasks)}
    elif request.operation == "progress":
        after, tasks = list(request.after), list(request.tasks)
        message |= {"before": frames, "after": after, "tasks": tasks, "references": references}
    else:
        ends = list(accumulate(request.lengths))
        episodes = [frames[end - length : end] for end, length in zip(ends, request.lengths, strict=True)]
        message |= {"episodes": episodes, "tasks": list(request.tasks), "references": references}
    return pack(message)


def decode_request(operation: Operation, body: bytes, limits: Limits) -> JudgeRequest:
    """Reads and checks the body of `POST /v1/{operation}`; frames stay encoded.

    Raises:
        WireFormatError: A rule of the format or a limit is broken; `reason` says which.
    """
    message = unpack(body, _ITEMS_PER_FRAME * limits.max_frames)
    _check_version(message)
    check_keys(message, _FIELDS[operation], f"a {operation} request")
    digests = _digests(message["digests"], limits)
    count = len(digests)
    episodes = _episodes(message["episodes"], count, limits) if operation == "value" else ()
    frames = tuple(chain.from_iterable(episodes))
    if operation != "value":
        name = "before" if operation == "progress" else "frames"
        frames = _indices(message[name], name, count, limits)
    after = _indices(message["after"], "after", count, limits) if operation == "progress" else ()
    references = message.get("references")
    request = JudgeRequest(
        operation=operation,
        digests=digests,
        frames=frames,
        after=after,
        lengths=tuple(map(len, episodes)),
        tasks=_tasks(message["tasks"], limits),
        references=None if references is None else _indices(references, "references", count, limits),
        pixels=_pixels_from_wire(message["pixels"], count, limits),
        deadline_ms=check_integer(
            message["deadline_ms"], "deadline_ms", 1, int(limits.max_deadline_s * 1000)
        ),
    )
    expected = len(episodes) if operation == "value" else len(frames)
    if len(request.tasks) != expected:
        raise WireFormatError(f"Expected {expected} tasks, one for each item, got {len(request.tasks)}.")
    if operation == "progress" and len(after) != len(frames):
        raise WireFormatError(f"Expected one after per before, got {len(frames)} before, {len(after)} after.")
    return request


def encode_frames(digests: Sequence[bytes], frames: Sequence[EncodedFrame]) -> bytes:
    """The body of `POST /v1/frames`, which stores frames for later requests."""
    pixels = _pixels_to_wire(dict(enumerate(frames)))
    return pack({"protocol": PROTOCOL_VERSION, "digests": list(digests), "pixels": pixels})


def decode_frames(body: bytes, limits: Limits) -> dict[bytes, EncodedFrame]:
    """Reads and checks the body of `POST /v1/frames`: digest -> frame, each digest with its frame.

    Raises:
        WireFormatError: As for `decode_request`.
    """
    message = unpack(body, _ITEMS_PER_FRAME * limits.max_frames)
    _check_version(message)
    check_keys(message, _UPLOAD_FIELDS, "an upload of frames")
    digests = _digests(message["digests"], limits)
    pixels = _pixels_from_wire(message["pixels"], len(digests), limits)
    if len(pixels) != len(digests):
        raise WireFormatError(f"Expected pixels for all {len(digests)} digests, got {len(pixels)}.")
    return {digests[index]: frame for index, frame in pixels.items()}


def encode_reply(reply: JudgeReply) -> bytes:
    """The body of a reply with status 200; the numbers are little-endian float32."""
    values = np.ascontiguousarray(reply.values, dtype="<f4").tobytes()
    return pack({**asdict(reply), "protocol": PROTOCOL_VERSION, "values": values})


def decode_reply(body: bytes) -> JudgeReply:
    """Reads and checks a reply with status 200.

    Raises:
        WireFormatError: The reply is not of this protocol.
    """
    message = unpack(body)
    _check_version(message)
    check_keys(message, _REPLY_FIELDS, "a reply")
    values = message["values"]
    if not isinstance(values, bytes) or len(values) % 4:
        raise WireFormatError("Expected values as bytes of float32 numbers.")
    for name, kind in (("instance", str), ("critic", str), ("batch", int)):
        if not isinstance(message[name], kind):
            raise WireFormatError(f"Expected {name} as {kind.__name__}, got {message[name]!r}.")
    for name in ("queue_ms", "model_ms"):
        if not isinstance(message[name], float):
            raise WireFormatError(f"Expected {name} as float, got {message[name]!r}.")
    return JudgeReply(
        values=np.frombuffer(values, dtype="<f4").astype(np.float32),
        instance=message["instance"],
        critic=message["critic"],
        queue_ms=message["queue_ms"],
        model_ms=message["model_ms"],
        batch=message["batch"],
    )


def _digests(digests: Any, limits: Limits) -> tuple[bytes, ...]:
    check_list(digests, "digests", limits.max_frames)
    for i, digest in enumerate(digests):
        if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
            raise WireFormatError(f"Expected digests[{i}] as {DIGEST_BYTES} bytes, got {shown(digest)}.")
    if len(set(digests)) != len(digests):
        raise WireFormatError("Expected distinct digests, got one twice.")
    return tuple(digests)


def _indices(items: Any, where: str, count: int, limits: Limits) -> tuple[int, ...]:
    check_list(items, where, limits.max_frames)
    return tuple(check_integer(item, f"{where}[{i}]", 0, count - 1) for i, item in enumerate(items))


def _episodes(items: Any, count: int, limits: Limits) -> tuple[tuple[int, ...], ...]:
    check_list(items, "episodes", limits.max_frames)
    episodes = tuple(_indices(item, f"episodes[{i}]", count, limits) for i, item in enumerate(items))
    if (total := sum(map(len, episodes))) > limits.max_frames:
        raise WireFormatError(
            f"Expected at most {limits.max_frames} frames in all, got {total}.", "too_large"
        )
    return episodes


def _tasks(tasks: Any, limits: Limits) -> tuple[str, ...]:
    check_list(tasks, "tasks", limits.max_frames)
    for i, task in enumerate(tasks):
        if not isinstance(task, str):
            raise WireFormatError(f"Expected tasks[{i}] as text, got {shown(task)}.")
        if len(task) > limits.max_task_chars:
            raise WireFormatError(
                f"Expected tasks[{i}] of at most {limits.max_task_chars} characters, got {len(task)}.",
                "too_large",
            )
    return tuple(tasks)


def _pixels_to_wire(pixels: Mapping[int, EncodedFrame]) -> list[dict[str, Any]]:
    return [
        {"index": i, "encoding": f.encoding, "height": f.height, "width": f.width, "data": f.data}
        for i, f in pixels.items()
    ]


def _pixels_from_wire(items: Any, count: int, limits: Limits) -> dict[int, EncodedFrame]:
    check_list(items, "pixels", limits.max_frames)
    pixels: dict[int, EncodedFrame] = {}
    decoded_bytes = 0
    for i, item in enumerate(items):
        where = f"pixels[{i}]"
        if not isinstance(item, dict):
            raise WireFormatError(f"Expected {where} as a map, got {shown(item)}.")
        check_keys(item, _PIXEL_FIELDS, where)
        index = check_integer(item["index"], f"{where}.index", 0, count - 1)
        if index in pixels:
            raise WireFormatError(f"{where} repeats index {index}.")
        pixels[index] = _encoded_frame(item, where, limits)
        decoded_bytes += pixels[index].decoded_bytes
    if decoded_bytes > limits.max_decoded_bytes:
        raise WireFormatError(
            f"Expected at most {limits.max_decoded_bytes} bytes of decoded frames, got {decoded_bytes}.",
            "too_large",
        )
    return pixels


def _encoded_frame(item: Mapping[str, Any], where: str, limits: Limits) -> EncodedFrame:
    encoding, data = item["encoding"], item["data"]
    if encoding not in ENCODINGS:
        raise WireFormatError(
            f"Unknown encoding {shown(encoding)} in {where}. Known: {', '.join(ENCODINGS)}."
        )
    if not isinstance(data, bytes):
        raise WireFormatError(f"Expected {where}.data as bytes, got {shown(data)}.")
    height = check_integer(item["height"], f"{where}.height", 1, 2**16)
    width = check_integer(item["width"], f"{where}.width", 1, 2**16)
    if height * width > limits.max_frame_pixels:
        raise WireFormatError(
            f"Expected {where} of at most {limits.max_frame_pixels} pixels, got {height} x {width}.",
            "too_large",
        )
    frame = EncodedFrame(encoding, height, width, data)
    if encoding == "raw" and len(data) != frame.decoded_bytes:
        raise WireFormatError(f"Expected {frame.decoded_bytes} raw bytes in {where}, got {len(data)}.")
    return frame


def _check_version(message: Mapping[str, Any]) -> None:
    version = message.get("protocol")
    if type(version) is not int or version != PROTOCOL_VERSION:
        raise WireFormatError(
            f"Expected protocol {PROTOCOL_VERSION}, got {shown(version)}. Install the same vlac-gym on both sides.",
            "protocol_version",
        )
