"""Frames as compressed files and back, with pillow: `encode_frame`, `decode_frame`, `EncodedFrames`, `png_data_url`."""

__all__ = [
    "DAMAGED_FILE",
    "FRAME_ENCODINGS",
    "EncodedFrames",
    "FrameEncoding",
    "decode_frame",
    "encode_frame",
    "png_data_url",
    "square_picture",
]

import base64
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, overload

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.extras import needs
from vlac_gym.frames.checks import check_frame
from vlac_gym.types import Frame

FrameEncoding = Literal["jpeg", "png"]
FRAME_ENCODINGS: tuple[FrameEncoding, ...] = get_args(FrameEncoding)

_PNG_LEVEL = 1
"""zlib's fastest: on rendered frames larger levels cost 3-10 times the time for a few percent."""

DAMAGED_FILE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
)
"""Pillow has no closed list of what a damaged file raises; these are what its readers use."""


def encode_frame(frame: Frame, encoding: FrameEncoding = "jpeg", quality: int = 95) -> bytes:
    """Compresses one frame; it is not modified.

    JPEG keeps full colour resolution (4:4:4): thin coloured edges decide whether an object rests on its goal.

    Args:
        frame: uint8 (H, W, 3), RGB.
        encoding: `"jpeg"` (lossy, about a tenth of the size) or `"png"` (exact).
        quality: JPEG quality, 1 to 100; ignored for PNG.

    Raises:
        ConfigError: Malformed frame, unknown encoding or quality out of range.
        DependencyNotInstalled: Pillow is missing.
    """
    check_frame(frame)
    if encoding not in FRAME_ENCODINGS:
        raise unknown_name("frame encoding", encoding, FRAME_ENCODINGS)
    if not 1 <= quality <= 100:
        raise ConfigError(f"Expected quality from 1 to 100, got {quality}.")
    options: dict[str, Any] = {"compress_level": _PNG_LEVEL}
    if encoding == "jpeg":
        options = {"quality": quality, "subsampling": 0}
    buffer = io.BytesIO()
    _pillow().fromarray(np.ascontiguousarray(frame)).save(buffer, encoding, **options)
    return buffer.getvalue()


def decode_frame(
    data: bytes,
    *,
    encodings: Sequence[FrameEncoding] = FRAME_ENCODINGS,
    size: tuple[int, int] | None = None,
) -> Frame:
    """Decompresses a JPEG or PNG file to uint8 (H, W, 3), RGB.

    Args:
        data: The file's bytes.
        encodings: Formats that are accepted.
        size: Height and width. Given, a file whose own header says another size, or that it is not RGB, is refused
            before it is decompressed; not given, other modes are converted to RGB.

    Raises:
        ConfigError: The bytes are no such picture, or damaged.
        DependencyNotInstalled: Pillow is missing.
    """
    pillow = _pillow()
    kinds = " or ".join(encoding.upper() for encoding in encodings)
    try:
        with pillow.open(io.BytesIO(data), formats=[encoding.upper() for encoding in encodings]) as image:
            found = (image.height, image.width, image.mode)
            if size is None or found == (*size, "RGB"):
                return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)
    except DAMAGED_FILE as e:
        raise ConfigError(
            f"Expected a {kinds} picture, got {len(data)} bytes that can't be read as one: {type(e).__name__}."
        ) from e
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as e:
        raise ConfigError(f"Expected a {kinds} picture, got one that unpacks to too many pixels.") from e
    raise ConfigError(f"Expected a {kinds} of (H, W) {size} RGB, got {found[:2]} {found[2]}.")


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


def square_picture(frame: Frame, side: int | None) -> Any:
    """The frame as a `PIL.Image`, resized to `side` x `side` with LANCZOS.

    VLAC sees one square tile per frame, aspect ratio not kept. Engines that tile pictures by their aspect
    ratio make one tile of a picture that has the model's own size already.

    Args:
        frame: uint8 (H, W, 3); not modified.
        side: Pixels of a side, or None to keep the frame's size.
    """
    image_module = _pillow()
    picture = image_module.fromarray(np.asarray(frame))
    if side is None or picture.size == (side, side):
        return picture
    return picture.resize((side, side), image_module.Resampling.LANCZOS)


def png_data_url(frame: Frame, side: int | None) -> str:
    """The frame as a `data:image/png;base64,…` URL, resized like `square_picture`; lossless."""
    data = encode_frame(np.asarray(square_picture(frame, side)), "png")
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _pillow() -> Any:
    with needs("Compressed frames", "client"):
        from PIL import Image
    return Image
