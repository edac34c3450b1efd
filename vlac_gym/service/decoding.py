"""Bodies to messages that keep the format and a server's limits: `decode_request`, `decode_upload`, `decode_reply`."""

__all__ = ["decode_reply", "decode_request", "decode_upload"]

from collections.abc import Mapping, Sequence
from typing import Any

from vlac_gym.service.messages import WireFormatError, fit, shown, unpack
from vlac_gym.service.protocol import (
    PROTOCOL_VERSION,
    REQUESTS,
    FrameUpload,
    Limits,
    Operation,
    Pixels,
    ProgressRequest,
    Reply,
    Request,
    SuccessProbRequest,
    ValueRequest,
)

_ITEMS_PER_FRAME = 16
"""A frame costs a digest, a `pixels` entry of 5 fields, and a place in up to three lists and the tasks."""


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
