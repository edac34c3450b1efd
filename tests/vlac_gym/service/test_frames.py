"""Frames on the wire and in the store."""

import io

import numpy as np
import pytest
from PIL import Image

from vlac_gym.critic.base import frame_digest
from vlac_gym.errors import ConfigError
from vlac_gym.service.frame_codec import decode_frame, encode_frame, jpeg_digest
from vlac_gym.service.frame_store import FrameStore
from vlac_gym.service.known_frames import KnownFrames
from vlac_gym.service.messages import WireFormatError
from vlac_gym.service.protocol import EncodedFrame


@pytest.mark.parametrize("encoding", ["raw", "png"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (64, 64)])
def test_lossless_encodings_return_the_same_frame(encoding, shape, random_frames):
    (frame,) = random_frames(1, *shape)
    before = frame.copy()
    decoded = decode_frame(frame_digest(frame), encode_frame(frame, encoding))
    assert decoded.dtype == np.uint8
    assert decoded.shape == frame.shape
    assert decoded.tobytes() == frame.tobytes()
    assert not decoded.flags.writeable
    assert frame.tobytes() == before.tobytes()


def test_views_of_larger_arrays_are_sent_as_what_they_show(random_frames):
    frame = random_frames(1, 8, 8)[0][::2, ::-1]
    decoded = decode_frame(frame_digest(frame), encode_frame(frame, "raw"))
    assert decoded.tolist() == frame.tolist()


def test_what_is_made_of_a_decoded_frame_has_a_digest_of_its_own(random_frames):
    (frame,) = random_frames(1, 8, 8)
    decoded = decode_frame(frame_digest(frame), encode_frame(frame))
    assert frame_digest(decoded) == frame_digest(frame)
    changed = decoded.copy()
    changed[0, 0, 0] ^= 1
    for derived in (decoded[:, ::-1], decoded[:4], changed, np.concatenate([decoded, decoded])):
        assert frame_digest(derived) == frame_digest(np.array(derived, subok=False)) != frame_digest(frame)


def test_jpeg_has_a_digest_of_its_own_that_never_names_the_frame(random_frames):
    (frame,) = random_frames(1, 16, 16)
    encoded = encode_frame(frame, "jpeg", 90)
    decoded = decode_frame(jpeg_digest(encoded.data), encoded)
    assert decoded.tolist() != frame.tolist()
    with pytest.raises(WireFormatError, match="came with pixels of") as caught:
        decode_frame(frame_digest(frame), encoded)
    assert caught.value.reason == "bad_frame"


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_pixels_that_their_digest_does_not_name_are_refused(encoding, random_frames):
    frame, other = random_frames(2)
    with pytest.raises(WireFormatError, match="came with pixels of"):
        decode_frame(frame_digest(other), encode_frame(frame, encoding))


def _file(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "encoded",
    [
        EncodedFrame("png", 2, 2, b"not a picture"),
        EncodedFrame("png", 2, 2, _file(Image.new("RGB", (4000, 4000)), "PNG")),
        EncodedFrame("png", 2, 2, _file(Image.new("L", (2, 2)), "PNG")),
        EncodedFrame("png", 2, 2, _file(Image.new("RGB", (2, 2)), "BMP")),
        EncodedFrame("png", 2, 2, _file(Image.new("RGB", (2, 2)), "JPEG")),
        EncodedFrame("jpeg", 2, 2, _file(Image.new("RGB", (2, 2)), "JPEG")[:-60]),
        EncodedFrame("png", 40, 40, _file(Image.effect_noise((40, 40), 9).convert("RGB"), "PNG")[:-80]),
    ],
    ids=["noise", "another size", "grey", "bmp", "jpeg as png", "cut jpeg", "cut png"],
)
def test_files_that_are_not_the_declared_picture_are_refused(encoded):
    digest = jpeg_digest(encoded.data)
    with pytest.raises(WireFormatError) as caught:
        decode_frame(digest, encoded)
    assert caught.value.reason == "bad_frame"


def test_the_store_forgets_what_was_used_longest_ago():
    store = FrameStore(max_bytes=24)
    one, two, three = (np.full((2, 2, 3), i, np.uint8) for i in range(3))
    store.put({b"1": one, b"2": two})
    assert store.held_bytes == 24
    assert store.take([b"1"])[1] == []
    store.put({b"3": three})
    found, missing = store.take([b"1", b"2", b"3"])
    assert (sorted(found), missing, store.held_bytes, len(store)) == ([b"1", b"3"], [b"2"], 24, 2)


def test_a_frame_larger_than_the_store_is_not_kept():
    store = FrameStore(max_bytes=11)
    store.put({b"1": np.zeros((2, 2, 3), np.uint8)})
    assert (store.held_bytes, len(store)) == (0, 0)


def test_storing_a_frame_twice_counts_it_once():
    store = FrameStore(max_bytes=100)
    for _ in range(2):
        store.put({b"1": np.zeros((2, 2, 3), np.uint8)})
    assert (store.held_bytes, len(store)) == (12, 1)
    store.clear()
    assert (store.held_bytes, len(store)) == (0, 0)


def test_a_store_needs_room():
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        FrameStore(0)


def test_frames_count_as_known_only_if_every_replica_has_them():
    known = KnownFrames()
    assert known.unknown_of([b"1"]) == [b"1"]
    known.add("a", [b"1", b"2"])
    assert known.unknown_of([b"1", b"2", b"3"]) == [b"3"]
    known.add("b", [b"2"])
    assert known.unknown_of([b"1", b"2"]) == [b"1"]
    known.forget([b"2"])
    assert known.unknown_of([b"1", b"2"]) == [b"1", b"2"]


def test_a_replica_that_answers_no_more_is_forgotten():
    known = KnownFrames()
    known.add("old", [b"1"])
    for _ in range(32):
        known.add("new", [b"2"])
    assert known.instances == 2
    known.add("new", [b"2"])
    assert known.instances == 1
    assert known.unknown_of([b"2"]) == []
