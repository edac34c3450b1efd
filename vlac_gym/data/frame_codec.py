"""Frames to compressed bytes and back: `encode_frame`, `decode_frame`, `EncodedFrames`.

Uses OpenCV where it is installed and Pillow otherwise, so that a collection machine needs only one of them.
"""

__all__ = ["FRAME_ENCODINGS", "EncodedFrames", "FrameEncoding", "decode_frame", "encode_frame"]

import functools
import importlib.util
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from vlac_gym.critic.base import check_frame
from vlac_gym.errors import ConfigError, DependencyNotInstalled, unknown_name
from vlac_gym.types import Frame

FrameEncoding = Literal["jpeg", "png"]
FRAME_ENCODINGS: tuple[str, ...] = ("jpeg", "png")


def encode_frame(frame: Frame, encoding: FrameEncoding = "jpeg", quality: int = 95) -> bytes:
    """Compresses one frame.

    JPEG keeps full colour resolution (4:4:4): thin coloured edges decide whether an object rests on its goal.

    Args:
        frame: uint8 (H, W, 3), RGB.
        encoding: `"jpeg"` (lossy, about a tenth of the size) or `"png"` (exact).
        quality: JPEG quality, 1 to 100; ignored for PNG.

    Raises:
        ConfigError: Malformed frame, unknown encoding or quality out of range.
        DependencyNotInstalled: Neither OpenCV nor Pillow is there.
    """
    check_frame(frame)
    if encoding not in FRAME_ENCODINGS:
        raise unknown_name("frame encoding", encoding, FRAME_ENCODINGS)
    if not 1 <= quality <= 100:
        raise ConfigError(f"Expected quality from 1 to 100, got {quality}.")
    return _codec()[0](frame, encoding, quality)


def decode_frame(data: bytes | NDArray[np.uint8]) -> Frame:
    """Decompresses what `encode_frame` returned (any JPEG or PNG picture) to uint8 (H, W, 3), RGB.

    Raises:
        ConfigError: The bytes are no picture.
        DependencyNotInstalled: Neither OpenCV nor Pillow is there.
    """
    return _codec()[1](bytes(data))


class EncodedFrames(Sequence[Frame]):
    """The frames of one camera, compressed back to back in one buffer; each is decoded when it is asked for.

    Args:
        data: uint8 (B,), all compressed frames one after the other.
        offsets: int64 (F + 1,); frame i is `data[offsets[i]:offsets[i + 1]]`.
    """

    def __init__(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        spans_data = offsets.size > 0 and offsets[0] == 0 and offsets[-1] == data.size
        if not spans_data or (np.diff(offsets) <= 0).any():
            raise ConfigError(
                f"Expected frame offsets that rise from 0 to {data.size}, got {offsets.tolist()}."
            )
        self.data = data
        self.offsets = offsets

    @classmethod
    def from_bytes(cls, pieces: Sequence[bytes]) -> "EncodedFrames":
        """Joins compressed frames."""
        offsets = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(pieces), dtype=np.uint8), offsets)

    def __len__(self) -> int:
        return self.offsets.size - 1

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return decode_frame(self.encoded(index))

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self)))

    def encoded(self, index: int) -> bytes:
        """The compressed bytes of frame `index`, to be written to a file without decoding."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        index %= len(self)
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()


@functools.cache
def _codec() -> tuple[Callable[[Frame, str, int], bytes], Callable[[bytes], Frame]]:
    try:
        import cv2
    except ImportError:
        pass
    else:
        return functools.partial(_encode_opencv, cv2), functools.partial(_decode_opencv, cv2)
    if importlib.util.find_spec("PIL") is None:
        raise DependencyNotInstalled(
            'Recorded frames need opencv or pillow. Run: pip install "vlac-gym[video]"'
        )
    return _encode_pillow, _decode_pillow


def _encode_opencv(cv2: Any, frame: Frame, encoding: str, quality: int) -> bytes:
    options = []
    if encoding == "jpeg":
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    ok, data = cv2.imencode(f".{encoding}", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise ConfigError(f"OpenCV could not encode a frame of shape {frame.shape} as {encoding}.")
    encoded: bytes = data.tobytes()
    return encoded


def _decode_opencv(cv2: Any, data: bytes) -> Frame:
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise ConfigError(f"Expected a JPEG or PNG picture, got {len(data)} bytes that are neither.")
    frame: Frame = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return frame


def _encode_pillow(frame: Frame, encoding: str, quality: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": quality, "subsampling": 0} if encoding == "jpeg" else {}
    Image.fromarray(frame).save(buffer, encoding, **options)
    return buffer.getvalue()


def _decode_pillow(data: bytes) -> Frame:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as e:
        raise ConfigError(f"Expected a JPEG or PNG picture, got {len(data)} bytes that are neither.") from e
