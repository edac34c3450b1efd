"""Frames as compressed files."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from vlac_gym.errors import ConfigError
from vlac_gym.frames.codec import EncodedFrames, decode_frame, encode_frame, png_data_url


def gradient_frame(offset: int = 0) -> np.ndarray:
    rows, columns = np.mgrid[0:24, 0:32]
    return np.stack([rows * 8, columns * 7, np.full_like(rows, offset)], axis=2).astype(np.uint8)


def test_png_is_exact_and_jpeg_is_close() -> None:
    frame = gradient_frame(33)
    exact = decode_frame(encode_frame(frame, "png"))
    np.testing.assert_array_equal(exact, frame)
    assert exact.flags.writeable
    jpeg = encode_frame(frame, "jpeg", quality=95)
    error = np.abs(decode_frame(jpeg).astype(int) - frame.astype(int))
    assert error.mean() < 3
    with Image.open(io.BytesIO(jpeg)) as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # 4:4:4, full colour resolution


def test_other_modes_become_rgb() -> None:
    buffer = io.BytesIO()
    Image.new("L", (2, 1), 77).save(buffer, "PNG")
    assert decode_frame(buffer.getvalue()).tolist() == [[[77] * 3, [77] * 3]]


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_what_is_no_picture_or_a_damaged_one_is_refused(encoding: str) -> None:
    with pytest.raises(ConfigError, match="a JPEG or PNG picture, got 4 bytes that can't be read"):
        decode_frame(b"nope")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    with pytest.raises(ConfigError, match=r"a JPEG or PNG picture, got .* bytes that can't be read"):
        decode_frame(encode_frame(noise, encoding)[:-80])


def test_another_format_or_size_than_declared_is_refused() -> None:
    jpeg = encode_frame(gradient_frame(), "jpeg")
    assert decode_frame(jpeg, encodings=("jpeg",), size=(24, 32)).shape == (24, 32, 3)
    with pytest.raises(ConfigError, match="Expected a PNG picture"):
        decode_frame(jpeg, encodings=("png",))
    with pytest.raises(ConfigError, match=r"Expected a JPEG of \(H, W\) \(32, 24\) RGB, got \(24, 32\) RGB"):
        decode_frame(jpeg, encodings=("jpeg",), size=(32, 24))


def test_encoding_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'jpeg'"):
        encode_frame(gradient_frame(), "jpg")
    with pytest.raises(ConfigError, match="quality from 1 to 100, got 0"):
        encode_frame(gradient_frame(), quality=0)
    with pytest.raises(ConfigError, match="float64"):
        encode_frame(np.zeros((4, 4, 3)))


def test_a_data_url_holds_the_resized_picture() -> None:
    kind, data = png_data_url(gradient_frame(5), None).split(",")
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(decode_frame(base64.b64decode(data)), gradient_frame(5))
    resized = decode_frame(base64.b64decode(png_data_url(gradient_frame(5), 14).split(",")[1]))
    assert resized.shape == (14, 14, 3)


def test_encoded_frames_slice_and_refuse_bad_offsets() -> None:
    frames = EncodedFrames.from_bytes([encode_frame(gradient_frame(i), "png") for i in range(3)])
    assert [frame[0, 0, 2] for frame in frames] == [0, 1, 2]
    assert [frame[0, 0, 2] for frame in frames[1:]] == [1, 2]
    with pytest.raises(IndexError):
        frames[3]
    with pytest.raises(ConfigError, match="rise from 0 to 4"):
        EncodedFrames(np.zeros(4, np.uint8), np.array([0, 3, 3, 4]))
