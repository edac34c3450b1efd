"""What every part asks of a picture: `check_frame`, `check_frames`, and its name by content:
`frame_digest`, `frame_key`, `with_digest`.
"""

__all__ = ["check_frame", "check_frames", "frame_digest", "frame_key", "with_digest"]

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.frames.on_device import DeviceFrame
from vlac_gym.types import Frame

_PICTURES = (np.ndarray, DeviceFrame)
_UINT8 = np.dtype(np.uint8)


def check_frame(frame: object, where: str = "frame") -> None:
    """Raises `ConfigError` unless `frame` is a uint8 (H, W, 3) array or `DeviceFrame` with H, W >= 1."""
    if not _is_frame(frame):
        raise _no_frame(frame, where)


def check_frames(frames: Sequence[Frame], where: str = "frames") -> None:
    """Raises `ConfigError`, naming the index, unless every frame is uint8 (H, W, 3)."""
    for i, frame in enumerate(frames):
        if not _is_frame(frame):
            raise _no_frame(frame, f"{where}[{i}]")


def _is_frame(frame: object) -> bool:
    if not isinstance(frame, _PICTURES) or frame.dtype != _UINT8:
        return False
    shape = frame.shape
    return len(shape) == 3 and shape[2] == 3 and 0 not in shape


def _no_frame(frame: object, where: str) -> ConfigError:
    if not isinstance(frame, _PICTURES):
        return ConfigError(
            f"Expected {where} as a uint8 (H, W, 3) array, got {type(frame).__name__}. "
            "Convert it with np.asarray."
        )
    return ConfigError(
        f"Expected {where} as uint8 (H, W, 3) with H, W >= 1, got {frame.dtype} {frame.shape}. "
        "Use RGB, channels last, 0..255."
    )


def frame_digest(frame: Frame) -> bytes:
    """BLAKE2b-128 of a frame's dtype, shape and bytes: equal digests mean equal pictures.

    Frames with signals (`vlac_gym.critic.signals`) of different moments differ, too, so that a cache may go by digests.
    """
    known: bytes | None = getattr(frame, "digest", None)
    if known is not None and not frame.flags.writeable:
        return known
    head = f"{frame.dtype.str}{frame.shape}".encode()
    if (signals := getattr(frame, "signals", None)) is not None:
        head += f"{signals.episode.env_index}/{signals.episode.episode}/{signals.number}".encode()
    return hashlib.blake2b(np.ascontiguousarray(frame).data, digest_size=16, key=head[:64]).digest()


def frame_key(frame: Frame) -> bytes:
    """What a cache in this process goes by: `frame_digest`, or the name of a `DeviceFrame`, without a download."""
    key: bytes | None = getattr(frame, "key", None)
    return frame_digest(frame) if key is None else key


def with_digest(frame: Frame, digest: bytes) -> Frame:
    """A read-only view that `frame_digest` does not hash again; views and copies of it carry no digest.

    Args:
        frame: uint8 (H, W, 3) without signals, which nobody else writes to.
        digest: What `frame_digest` says of it.
    """
    named = frame.view(_NamedFrame)
    named.flags.writeable = False
    named.digest = digest
    return named


class _NamedFrame(np.ndarray[Any, np.dtype[np.uint8]]):
    digest: bytes | None = None
