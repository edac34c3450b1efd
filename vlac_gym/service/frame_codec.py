"""Frames to and from wire bytes: `encode_frame`, `decode_frame`, `jpeg_digest`.

`raw` and `png` keep every pixel, and their digest is the frame's own. `jpeg` changes pixels, so its digest
names the compressed bytes: a JPEG never stands in for the frame that it was made from.
"""

__all__ = ["decode_frame", "encode_frame", "jpeg_digest"]

import hashlib

import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.frames import codec
from vlac_gym.frames.checks import frame_digest, with_digest
from vlac_gym.service.client_config import Encoding
from vlac_gym.service.messages import WireFormatError
from vlac_gym.service.protocol import DIGEST_BYTES, EncodedFrame
from vlac_gym.types import Frame


def encode_frame(frame: Frame, encoding: Encoding = "raw", jpeg_quality: int = 95) -> EncodedFrame:
    """A frame as bytes for the wire; the frame is not modified.

    Raises:
        DependencyNotInstalled: `png` or `jpeg` without pillow.
    """
    data = (
        np.asarray(frame).tobytes()
        if encoding == "raw"
        else codec.encode_frame(frame, encoding, jpeg_quality)
    )
    return EncodedFrame(encoding, frame.shape[0], frame.shape[1], data)


def decode_frame(digest: bytes, encoded: EncodedFrame) -> Frame:
    """The frame, uint8 (H, W, 3) and read-only, once its bytes are proven to be what `digest` names.

    The size was bounded by `protocol.decode_request`; a file whose own header says another size is
    refused before it is decompressed.

    Raises:
        WireFormatError: The bytes are no such picture, or the digest names another.
    """
    frame = _pixels(encoded)
    actual = jpeg_digest(encoded.data) if encoded.encoding == "jpeg" else frame_digest(frame)
    if actual != digest:
        raise WireFormatError(f"Digest {digest.hex()} came with pixels of {actual.hex()}.", "bad_frame")
    # A JPEG's digest is not its frame's.
    if encoded.encoding != "jpeg":
        return with_digest(frame, digest)
    frame.flags.writeable = False
    return frame


def _pixels(encoded: EncodedFrame) -> Frame:
    if encoded.encoding == "raw":
        return np.frombuffer(encoded.data, np.uint8).reshape(encoded.height, encoded.width, 3)
    size = (encoded.height, encoded.width)
    try:
        return codec.decode_frame(encoded.data, encodings=(encoded.encoding,), size=size)
    except ConfigError as e:
        raise WireFormatError(str(e), "bad_frame") from e


def jpeg_digest(data: bytes) -> bytes:
    """BLAKE2b-128 of a JPEG file, in a space of its own."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=b"jpeg").digest()
