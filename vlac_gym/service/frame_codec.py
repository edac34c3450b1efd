"""Frames to and from wire bytes: `encode_frame`, `decode_frame`, `jpeg_digest`.

`raw` and `png` keep every pixel, and their digest is the frame's own. `jpeg` changes pixels, so its digest
names the compressed bytes: a JPEG never stands in for the frame that it was made from.
"""

__all__ = ["decode_frame", "encode_frame", "jpeg_digest"]

import hashlib
import io
import struct
import zlib
from typing import Any

import numpy as np

from vlac_gym.critic.base import frame_digest
from vlac_gym.errors import DependencyNotInstalled
from vlac_gym.service.protocol import DIGEST_BYTES, EncodedFrame, Encoding, WireFormatError
from vlac_gym.types import Frame

_PNG_LEVEL = 1
"""zlib's fastest: on rendered frames larger levels cost 3-10 times the time for a few percent."""


_DAMAGED_FILE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
)
"""Pillow has no closed list of what a damaged file raises; these are what its PNG and JPEG readers use."""


def encode_frame(frame: Frame, encoding: Encoding = "raw", jpeg_quality: int = 95) -> EncodedFrame:
    """A frame as bytes for the wire; the frame is not modified.

    Raises:
        DependencyNotInstalled: `png` or `jpeg` without pillow.
    """
    height, width = frame.shape[:2]
    if encoding == "raw":
        return EncodedFrame("raw", height, width, frame.tobytes())
    buffer = io.BytesIO()
    image = _pillow().fromarray(np.ascontiguousarray(frame))
    if encoding == "png":
        image.save(buffer, "PNG", compress_level=_PNG_LEVEL)
    else:
        image.save(buffer, "JPEG", quality=jpeg_quality, subsampling=0)
    return EncodedFrame(encoding, height, width, buffer.getvalue())


def decode_frame(digest: bytes, encoded: EncodedFrame) -> Frame:
    """The frame, uint8 (H, W, 3) and read-only, once its bytes are proven to be what `digest` names.

    The size was bounded by `protocol.decode_request`; a file whose own header says another size is
    refused before it is decompressed.

    Raises:
        WireFormatError: The bytes are no such picture, or the digest names another.
    """
    if encoded.encoding == "raw":
        frame = np.frombuffer(encoded.data, np.uint8).reshape(encoded.height, encoded.width, 3)
        actual = frame_digest(frame)
    elif encoded.encoding == "png":
        frame = _decompress(encoded)
        actual = frame_digest(frame)
    else:
        actual = jpeg_digest(encoded.data)
        frame = _decompress(encoded)
    if actual != digest:
        raise WireFormatError(f"Digest {digest.hex()} came with pixels of {actual.hex()}.", "bad_frame")
    return frame


def jpeg_digest(data: bytes) -> bytes:
    """BLAKE2b-128 of a JPEG file, in a space of its own."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=b"jpeg").digest()


def _decompress(encoded: EncodedFrame) -> Frame:
    pillow = _pillow()
    kind = encoded.encoding.upper()
    try:
        with pillow.open(io.BytesIO(encoded.data), formats=[kind]) as image:
            if image.size != (encoded.width, encoded.height) or image.mode != "RGB":
                raise WireFormatError(
                    f"Expected a {kind} of {encoded.height} x {encoded.width} RGB, "
                    f"got {image.size[1]} x {image.size[0]} {image.mode}.",
                    "bad_frame",
                )
            frame = np.array(image, dtype=np.uint8)
    except _DAMAGED_FILE as e:
        raise WireFormatError(f"The bytes are no readable {kind}: {type(e).__name__}.", "bad_frame") from e
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as e:
        raise WireFormatError(f"The {kind} unpacks to too many pixels.", "bad_frame") from e
    frame.flags.writeable = False
    return frame


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as e:
        raise DependencyNotInstalled(
            'PNG and JPEG frames need pillow. Run: pip install "vlac-gym[client]"'
        ) from e
    return Image
