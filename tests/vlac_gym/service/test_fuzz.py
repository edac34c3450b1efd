"""20,000 requests that somebody broke: each gets a typed answer, none hangs, and the memory stays as it was."""

import asyncio
import gc
import io
import json
import random
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from PIL import Image

from vlac_gym.critic.base import frame_digest
from vlac_gym.service.app import create_app
from vlac_gym.service.core import CriticService, ServiceConfig
from vlac_gym.service.frame_codec import encode_frame, jpeg_digest
from vlac_gym.service.messages import pack, unpack
from vlac_gym.service.protocol import (
    EncodedFrame,
    FrameUpload,
    Limits,
    Pixels,
    ProgressRequest,
    SuccessProbRequest,
    ValueRequest,
)
from vlac_gym.service.wire_errors import ERROR_REASONS

EXAMPLES, REQUESTS_PER_EXAMPLE = 500, 41
PATHS = ("/v1/success_prob", "/v1/progress", "/v1/value", "/v1/frames")
LIMITS = Limits(max_body_bytes=4096, max_frames=16, max_frame_pixels=4096, max_decoded_bytes=2**16)


def valid_bodies() -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (6, 5, 3), dtype=np.uint8) for _ in range(3)]
    encoded = [encode_frame(frame, kind) for frame, kind in zip(frames, ("raw", "png", "jpeg"), strict=True)]
    digests = [frame_digest(frames[0]), frame_digest(frames[1]), jpeg_digest(encoded[2].data)]
    bomb = io.BytesIO()
    Image.new("RGB", (2000, 2000)).save(bomb, "PNG")
    encoded_bomb = EncodedFrame("png", 64, 64, bomb.getvalue()[:3000])
    pixels = Pixels.of(dict(enumerate(encoded)))
    common: dict[str, Any] = {"digests": tuple(digests), "pixels": pixels, "deadline_ms": 500}
    success = SuccessProbRequest(frames=(0, 1, 2), tasks=("a", "b", "ü"), **common)
    progress = ProgressRequest(before=(0, 1), after=(1, 2), tasks=("a", "b"), references=(0, 2), **common)
    value = ValueRequest(episodes=((0, 1, 2), (1,)), tasks=("a", "b"), references=None, **common)
    return [
        ("/v1/success_prob", pack(success)),
        ("/v1/progress", pack(progress)),
        ("/v1/value", pack(value)),
        ("/v1/value", pack(replace(value, digests=(b"1" * 16, b"2" * 16, b"3" * 16), pixels=()))),
        ("/v1/frames", pack(FrameUpload(tuple(digests), pixels))),
        ("/v1/frames", pack(FrameUpload((b"b" * 16,), Pixels.of({0: encoded_bomb})))),
    ]


BODIES = valid_bodies()
WILD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2**63,
    1.5,
    float("nan"),
    "",
    "x",
    "../../etc/passwd",
    b"",
    b"x" * 16,
]
WILD += [[], [[]], {}, {"a": 1}]


def flip_bytes(body: bytes, rng: random.Random) -> bytes:
    mutated = bytearray(body)
    for _ in range(rng.randint(1, 8)):
        mutated[rng.randrange(len(mutated))] = rng.randrange(256)
    return bytes(mutated)


def cut_or_repeat(body: bytes, rng: random.Random) -> bytes:
    start, stop = sorted((rng.randrange(len(body) + 1), rng.randrange(len(body) + 1)))
    return rng.choice(
        [body[:start], body[stop:], body[:start] + body[stop:], body[:stop] + body[start:], body + body]
    )


def noise(body: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(200))


def change_field(body: bytes, rng: random.Random) -> bytes:
    message = unpack(body)
    name = rng.choice([*message, "unknown"])
    action = rng.randrange(3)
    if action == 0:
        message.pop(name, None)
    elif action == 1 or not isinstance(message.get(name), list) or not message[name]:
        message[name] = rng.choice(WILD)
    else:
        items, place = message[name], rng.randrange(len(message[name]))
        if isinstance(items[place], dict) and rng.random() < 0.8:
            items[place][rng.choice([*items[place], "path"])] = rng.choice(WILD)
        else:
            items[place] = rng.choice(WILD)
    return pack_wildly(message)


def pack_wildly(message: dict[str, Any]) -> bytes:
    try:
        return pack(message)
    except (OverflowError, ValueError):
        return b"\xc1"


Mutation = Callable[[bytes, random.Random], bytes]
MUTATIONS: list[Mutation] = [flip_bytes, cut_or_repeat, noise, change_field, change_field]


class Caller:
    """Calls the app as a server would, without one."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        sent: list[dict[str, Any]] = []
        incoming = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict[str, Any]:
            return next(incoming, {"type": "http.disconnect"})

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        await self._app(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def mutated_request(rng: random.Random) -> tuple[str, bytes, dict[str, str]]:
    path, body = rng.choice(BODIES)
    mutated = rng.choice(MUTATIONS)(body, rng)
    if rng.random() < 0.1:
        path = rng.choice(PATHS)
    headers = {
        "content-type": "application/msgpack",
        "accept": "application/msgpack",
        "content-length": str(len(mutated)),
    }
    if rng.random() < 0.05:
        name = rng.choice([*headers, "x-vlac-client", "x-request-id", "content-encoding", "authorization"])
        headers[name] = rng.choice(
            ["", "-1", "7", "a" * 500, "\xff\xfe", "gzip", "Bearer x", "0x10", "１"[:0]]
        )
    return path, mutated, headers


def test_twenty_thousand_mutated_requests_get_typed_answers(fakes):
    config = ServiceConfig(limits=LIMITS, max_wait_ms=0, frame_store_bytes=2**14)
    service = CriticService(fakes.BrightnessCritic, config)
    app = create_app(service)
    caller = Caller(app)
    seen: dict[str, int] = {}
    loop = asyncio.new_event_loop()

    async def check(rng: random.Random) -> None:
        path, body, headers = mutated_request(rng)
        status, reply = await asyncio.wait_for(caller.post(path, body, headers), timeout=5)
        if status == 200:
            reason = "ok"
        else:
            is_msgpack = headers["accept"] == "application/msgpack"
            reason = (unpack(reply) if is_msgpack else json.loads(reply))["error"]["reason"]
            assert ERROR_REASONS[reason][0] == status
            # The only server errors a stranger may cause: the deadline that he chose himself.
            assert status < 500 or reason == "deadline", (path, body, headers)
            assert b"Traceback" not in reply
        seen[reason] = seen.get(reason, 0) + 1

    async def check_all(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(REQUESTS_PER_EXAMPLE):
            await check(rng)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**64))
    def run(seed: int) -> None:
        loop.run_until_complete(check_all(seed))

    lifespan = app.router.lifespan_context(app)
    loop.run_until_complete(lifespan.__aenter__())
    try:
        for seed in range(40):
            loop.run_until_complete(check_all(seed))
        gc.collect()
        objects, peak_kb = len(gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run()
        gc.collect()
        grown_objects = len(gc.get_objects()) - objects
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kb
    finally:
        loop.run_until_complete(lifespan.__aexit__(None, None, None))
        loop.close()
    assert sum(seen.values()) >= 20_000
    assert seen["ok"] > 100
    assert {
        "malformed",
        "missing_frames",
        "bad_frame",
        "too_large",
        "protocol_version",
        "length_required",
    } <= seen.keys()
    assert service.batcher.state == "closed"
    assert service.requests_in_work == 0
    assert service.frames.held_bytes <= 2**14
    assert grown_objects < 20_000
    assert grown_kb < 64 * 1024
