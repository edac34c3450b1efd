"""The wire format: what it carries unchanged, and what it refuses."""

import numpy as np
import pytest

from vlac_gym.errors import ConfigError, CriticProtocolError
from vlac_gym.service.decoding import decode_reply, decode_request, decode_upload
from vlac_gym.service.messages import WireFormatError, pack, unpack
from vlac_gym.service.protocol import (
    FrameUpload,
    Limits,
    Pixels,
    ProgressRequest,
    Reply,
    SuccessProbRequest,
    ValueRequest,
)

A, B = b"a" * 16, b"b" * 16
PIXEL = Pixels(0, "raw", 1, 1, b"\x01\x02\x03")
LIMITS = Limits(max_frames=4, max_frame_pixels=6, max_decoded_bytes=12, max_task_chars=5, max_deadline_s=2)


def message(**changes: object) -> dict[str, object]:
    fields = {
        "protocol": 1,
        "deadline_ms": 1000,
        "digests": [A],
        "pixels": [{"index": 0, "encoding": "raw", "height": 1, "width": 1, "data": b"\x01\x02\x03"}],
        "frames": [0],
        "tasks": ["x"],
    }
    return {key: value for key, value in (fields | changes).items() if value is not ...}


def pixel(**changes: object) -> list[dict[str, object]]:
    return [{"index": 0, "encoding": "raw", "height": 1, "width": 1, "data": b"\x01\x02\x03"} | changes]


def test_a_request_is_these_bytes():
    request = SuccessProbRequest(1000, (A,), (PIXEL,), (0,), ("x",))
    body = bytes.fromhex(
        "86a870726f746f636f6c01ab646561646c696e655f6d73cd03e8a76469676573747391c41061616161616161616161616161616161"
        "a6706978656c739185a5696e64657800a8656e636f64696e67a3726177a668656967687401a5776964746801a464617461c403010203"
        "a66672616d65739100a57461736b7391a178"
    )
    assert pack(request) == body


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("success_prob", SuccessProbRequest(7, (A, B), (), (0, 1, 0), ("öß", "", "你好"))),
        ("success_prob", SuccessProbRequest(1, (), (), (), ())),
        ("progress", ProgressRequest(1, (A, B), (), (0,), (1,), ("t",), None)),
        ("progress", ProgressRequest(1, (A, B), (), (0,), (1,), ("t",), (1, 0))),
        ("value", ValueRequest(1, (A, B), (), ((0, 1), (), (1,)), ("t", "u", "v"), ())),
        ("value", ValueRequest(1, (A,), (PIXEL,), ((0,),), ("t",), None)),
    ],
)
def test_requests_come_out_as_they_went_in(operation, request_):
    limits = Limits(max_frames=8)
    assert decode_request(operation, pack(request_), limits) == request_


@pytest.mark.parametrize("values", [[], [0.25], [np.nextafter(np.float32(0.1), np.float32(1)), 1.0, 0.0]])
def test_replies_keep_every_bit_of_their_numbers(values):
    numbers = np.array(values, np.float32)
    decoded = decode_reply(pack(Reply(numbers.tobytes(), "i", "c", 1.5, 2.5, 3, 1)))
    assert decoded.numbers.dtype == np.float32
    assert decoded.numbers.tobytes() == numbers.tobytes()
    assert (decoded.instance, decoded.critic, decoded.queue_ms, decoded.model_ms, decoded.batch) == (
        "i",
        "c",
        1.5,
        2.5,
        3,
    )


def test_uploads_come_out_as_they_went_in():
    upload = FrameUpload((B, A), (PIXEL, Pixels(1, "png", 1, 1, b"\x04")))
    assert decode_upload(pack(upload), Limits()) == upload


def test_an_upload_brings_the_pixels_of_every_digest():
    with pytest.raises(WireFormatError, match="Expected pixels for all 2 digests, got 1"):
        decode_upload(pack(FrameUpload((B, A), (PIXEL,))), Limits())


@pytest.mark.parametrize(
    ("changes", "reason", "text"),
    [
        ({"protocol": 2}, "protocol_version", "Expected protocol 1, got 2"),
        ({"protocol": True}, "protocol_version", "got True"),
        ({"protocol": ...}, "protocol_version", "got None"),
        ({"extra": 1}, "malformed", "Not a success_prob request: Object contains unknown field `extra`"),
        ({"tasks": ...}, "malformed", "Not a success_prob request: Object missing required field `tasks`"),
        ({"deadline_ms": 0}, "malformed", r"Expected `int` >= 1 - at `\$.deadline_ms`"),
        ({"deadline_ms": 2001}, "malformed", r"deadline_ms as an integer in \[1, 2000\], got 2001"),
        ({"deadline_ms": 5.0}, "malformed", r"Expected `int`, got `float` - at `\$.deadline_ms`"),
        ({"digests": [A, A]}, "malformed", "distinct"),
        ({"digests": [b"short"]}, "malformed", r"Expected `bytes` of length >= 16 - at `\$.digests\[0\]`"),
        ({"digests": [A + b"!"]}, "malformed", r"Expected `bytes` of length <= 16 - at `\$.digests\[0\]`"),
        ({"digests": "text"}, "malformed", r"Expected `array`, got `str` - at `\$.digests`"),
        ({"digests": [bytes([i]) * 16 for i in range(5)]}, "too_large", "at most 4 digests, got 5"),
        ({"frames": [1]}, "malformed", r"frames\[0\] as an integer in \[0, 0\], got 1"),
        ({"frames": [-1]}, "malformed", r"Expected `int` >= 0 - at `\$.frames\[0\]`"),
        ({"frames": [True]}, "malformed", r"Expected `int`, got `bool` - at `\$.frames\[0\]`"),
        ({"frames": [0] * 5, "tasks": ["x"] * 5}, "too_large", "at most 4 frames"),
        ({"tasks": ["x", "y"]}, "malformed", "Expected 1 tasks"),
        ({"tasks": "x"}, "malformed", r"Expected `array`, got `str` - at `\$.tasks`"),
        ({"tasks": [1]}, "malformed", r"Expected `str`, got `int` - at `\$.tasks\[0\]`"),
        ({"tasks": ["123456"]}, "too_large", r"at most 5 characters in tasks\[0\], got 6"),
        ({"pixels": [7]}, "malformed", r"Expected `object`, got `int` - at `\$.pixels\[0\]`"),
        ({"pixels": pixel(path="/etc/passwd")}, "malformed", r"unknown field `path` - at `\$.pixels\[0\]`"),
        ({"pixels": pixel() * 2}, "malformed", "each frame once in pixels"),
        ({"pixels": pixel(index=1)}, "malformed", r"indices of pixels\[0\] as an integer in \[0, 0\], got 1"),
        (
            {"pixels": pixel(encoding="pickle")},
            "malformed",
            r"Invalid enum value 'pickle' - at `\$.pixels",
        ),
        (
            {"pixels": pixel(encoding=["raw"])},
            "malformed",
            r"Expected `str`, got `array` - at `\$.pixels",
        ),
        (
            {"pixels": pixel(data="text")},
            "malformed",
            r"Expected `bytes`, got `str` - at `\$.pixels\[0\].data`",
        ),
        ({"pixels": pixel(data=b"12")}, "malformed", "Expected 3 raw bytes"),
        ({"pixels": pixel(height=0)}, "malformed", r"Expected `int` >= 1 - at `\$.pixels\[0\].height`"),
        ({"pixels": pixel(height=7)}, "too_large", "at most 6 pixels, got 7 x 1"),
    ],
)
def test_broken_requests_are_refused_with_a_reason(changes, reason, text):
    with pytest.raises(WireFormatError, match=text) as caught:
        decode_request("success_prob", pack(message(**changes)), LIMITS)
    assert caught.value.reason == reason


def test_all_frames_of_a_request_share_one_bound_after_decompression():
    pixels = [pixel(index=i, encoding="png", height=1, width=3)[0] for i in range(2)]
    with pytest.raises(WireFormatError, match="at most 12 bytes of decoded frames, got 18") as caught:
        decode_request("success_prob", pack(message(digests=[A, B], pixels=pixels)), LIMITS)
    assert caught.value.reason == "too_large"


def test_episodes_together_keep_to_the_bound_on_frames():
    body = pack(message(frames=..., episodes=[[0, 0, 0], [0, 0]], tasks=["x", "y"], references=None))
    with pytest.raises(WireFormatError, match="at most 4 frames in all, got 5"):
        decode_request("value", body, LIMITS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x81",
        b"\x80\x80",
        b"\x90",
        b"\x01",
        pack({"a": 1})[:-1],
        b"\x82\xa1a\x01\xa1a\x02",
        b"\x81\x01\x02",
        b"\x81\xc4\x01a\x02",
        b"\x81\xa1a\xd6\xff\x00\x00\x00\x00",
        b"\x81\xa1a" + b"\x91" * 5000 + b"\x01",
        b"\x81\xa2\xff\xfe\x01",
        b"\xdd\xff\xff\xff\xff",
    ],
    ids=[
        "empty",
        "reserved byte",
        "cut map",
        "two messages",
        "list",
        "number",
        "cut value",
        "key twice",
        "number as key",
        "bytes as key",
        "timestamp",
        "nested too deep",
        "not utf-8",
        "huge length",
    ],
)
def test_only_one_map_with_text_keys_is_a_message(body):
    with pytest.raises(WireFormatError) as caught:
        unpack(body)
    assert caught.value.reason in ("malformed", "too_large")


def test_many_tiny_objects_are_refused_before_they_fill_the_memory():
    lists = b"\xdc\x00\x14" + (b"\xdc\x00\x64" + b"\x80" * 100) * 20
    with pytest.raises(WireFormatError, match="too many entries") as caught:
        unpack(b"\x81\xa1a" + lists, max_items=1000)
    assert caught.value.reason == "too_large"
    assert len(unpack(b"\x81\xa1a" + lists, max_items=5000)["a"]) == 20


@pytest.mark.parametrize(
    "changes",
    [{"values": b"123"}, {"values": "x"}, {"batch": 1.5}, {"instance": 1}, {"queue_ms": "1"}, {"more": 1}],
)
def test_replies_of_another_form_are_refused(changes):
    body = unpack(pack(Reply(bytes(4), "i", "c", 0.0, 0.0, 1, 1)))
    with pytest.raises(CriticProtocolError):
        decode_reply(pack(body | changes))


def test_limits_are_positive():
    with pytest.raises(ConfigError, match="max_frames above 0, got 0"):
        Limits(max_frames=0)
