"""The HTTP face, in this process: batches, errors, limits, sleep, metrics, and an OpenAPI page that is true."""

import asyncio
import contextlib
import gc
import json
import logging
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest

from vlac_gym.critic.base import frame_digest
from vlac_gym.critic.oracle import OracleCritic
from vlac_gym.errors import ConfigError
from vlac_gym.service.app import create_app
from vlac_gym.service.core import CriticService, ServiceConfig
from vlac_gym.service.frame_codec import encode_frame
from vlac_gym.service.messages import pack, unpack
from vlac_gym.service.protocol import JudgeRequest, Limits, decode_reply, encode_frames, encode_request
from vlac_gym.service.wire_errors import ERROR_REASONS

HEADERS = {"content-type": "application/msgpack", "accept": "application/msgpack"}


@contextlib.asynccontextmanager
async def running(critic, **options) -> AsyncIterator[tuple[httpx.AsyncClient, CriticService]]:
    """A client of an app in this process, once its critic is loaded."""
    service = CriticService(lambda: critic, ServiceConfig(**options))
    app = create_app(service)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://s") as client,
    ):
        while service.batcher.state == "loading" and service.load_error is None:
            await asyncio.sleep(0.001)
        yield client, service


def request_body(
    frames, operation="success_prob", task="t", attach=True, deadline_ms=5000, **fields
) -> bytes:
    digests = tuple(frame_digest(frame) for frame in frames)
    pixels = {i: encode_frame(frame) for i, frame in enumerate(frames)} if attach else {}
    request = JudgeRequest(
        operation,
        digests,
        tuple(range(len(frames))),
        (task,) * (1 if operation == "value" else len(frames)),
        lengths=(len(frames),) if operation == "value" else (),
        pixels=pixels,
        deadline_ms=deadline_ms,
        **fields,
    )
    return encode_request(request)


async def post(client, body, operation="success_prob", **headers) -> httpx.Response:
    return await client.post(f"/v1/{operation}", content=body, headers=HEADERS | headers)


def reason_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, unpack(response.content)["error"]["reason"]


def test_concurrent_requests_of_many_clients_share_batches(fakes, random_frames):
    critic = fakes.BrightnessCritic(delay_s=0.02)
    frames = random_frames(40)

    async def scenario():
        async with running(critic, max_batch=16, max_wait_ms=20) as (client, _):
            bodies = [request_body([frame]) for frame in frames]
            posts = [post(client, body, **{"x-vlac-client": f"c{i}"}) for i, body in enumerate(bodies)]
            return [decode_reply(reply.content) for reply in await asyncio.gather(*posts)]

    replies = asyncio.run(scenario())
    assert [reply.values.tolist() for reply in replies] == [[np.float32(fakes.brightness(f))] for f in frames]
    assert sum(count for _, count in critic.batches) == 40
    assert max(count for _, count in critic.batches) == 16
    assert len(critic.batches) <= 5
    assert max(reply.batch for reply in replies) == 16
    assert critic.is_closed


def test_one_clients_flood_does_not_hold_up_another(fakes, random_frames):
    critic = fakes.BrightnessCritic(delay_s=0.02)
    frames = random_frames(200)

    async def scenario():
        async with running(critic, max_batch=10) as (client, _):
            flood = asyncio.create_task(
                post(client, request_body(frames[:199]), **{"x-vlac-client": "flood"})
            )
            await asyncio.sleep(0.05)
            before = len(critic.batches)
            reply = await post(client, request_body(frames[199:]), **{"x-vlac-client": "small"})
            waited = len(critic.batches) - before
            await flood
            return reply.status_code, waited

    status, batches_waited = asyncio.run(scenario())
    assert status == 200
    assert batches_waited <= 2
    assert len(critic.batches) == 20


def test_known_frames_need_no_pixels_and_unknown_ones_are_named(fakes, random_frames):
    frames = random_frames(3)

    async def scenario():
        async with running(fakes.BrightnessCritic()) as (client, service):
            await post(client, request_body(frames[:2]))
            known = await post(client, request_body(frames[:2], "value", attach=False), "value")
            unknown = await post(client, request_body(frames, attach=False))
            return known, unknown, service.frames.hits, service.frames.misses

    known, unknown, hits, misses = asyncio.run(scenario())
    values = decode_reply(known.content).values
    assert values.tolist() == fakes.BrightnessCritic().value(frames[:2], "t").tolist()
    assert reason_of(unknown) == (409, "missing_frames")
    assert unpack(unknown.content)["error"]["missing"] == [frame_digest(frames[2])]
    assert (hits, misses) == (4, 1)


def test_frames_can_be_sent_ahead(fakes, random_frames):
    frames = random_frames(2)
    upload = encode_frames([frame_digest(f) for f in frames], [encode_frame(f, "png") for f in frames])

    async def scenario():
        async with running(fakes.BrightnessCritic()) as (client, _):
            stored = await post(client, upload, "frames")
            return stored, await post(client, request_body(frames, attach=False))

    stored, reply = asyncio.run(scenario())
    assert unpack(stored.content)["stored"] == 2
    assert reply.status_code == 200


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("fault: memory", (500, "out_of_memory")),
        ("fault: crash", (500, "model_failed")),
        ("fault: nan", (502, "no_number")),
        ("fault: too few", (502, "no_number")),
    ],
)
def test_a_failing_critic_gives_a_typed_error_and_goes_on(fakes, random_frames, task, expected):
    frames = random_frames(2)

    async def scenario():
        async with running(fakes.BrightnessCritic()) as (client, _):
            failed = await post(client, request_body(frames, task=task))
            return failed, await post(client, request_body(frames))

    failed, after = asyncio.run(scenario())
    assert reason_of(failed) == expected
    assert b"Traceback" not in failed.content
    assert after.status_code == 200


def test_one_clients_bad_question_does_not_fail_the_batch_of_others(fakes, random_frames):
    critic = fakes.BrightnessCritic()
    frames = random_frames(3)

    async def scenario():
        async with running(critic, max_wait_ms=200, max_batch=3) as (client, _):
            tasks = ("t", "fault: crash", "t")
            return await asyncio.gather(
                *(
                    post(client, request_body([frame], task=task), **{"x-vlac-client": str(i)})
                    for i, (frame, task) in enumerate(zip(frames, tasks, strict=True))
                )
            )

    replies = asyncio.run(scenario())
    assert [reply.status_code for reply in replies] == [200, 500, 200]
    assert critic.batches == [("success_prob", 3)] + [("success_prob", 1)] * 3


def test_the_queue_is_bounded_and_says_when_to_come_back(fakes, random_frames):
    frames = random_frames(8)

    async def scenario():
        async with running(fakes.BrightnessCritic(delay_s=0.1), max_queue=4, max_batch=1) as (client, _):
            first = asyncio.create_task(post(client, request_body(frames[:2])))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(post(client, request_body(frames[2:5]), **{"x-vlac-client": "b"}))
            await asyncio.sleep(0.01)
            third = await post(client, request_body(frames[5:8]), **{"x-vlac-client": "c"})
            return (await first).status_code, (await second).status_code, third

    first, second, third = asyncio.run(scenario())
    assert (first, second) == (200, 200)
    assert reason_of(third) == (503, "queue_full")
    assert int(third.headers["retry-after"]) >= 1


def test_a_question_that_waits_too_long_gets_a_timeout_and_is_not_asked(fakes, random_frames):
    critic = fakes.BrightnessCritic(delay_s=0.3)
    frames = random_frames(2)

    async def scenario():
        async with running(critic, max_batch=1, max_wait_ms=0) as (client, _):
            slow = asyncio.create_task(post(client, request_body(frames[:1])))
            await asyncio.sleep(0.05)
            late = await post(client, request_body(frames[1:], deadline_ms=50))
            await slow
            return late

    assert reason_of(asyncio.run(scenario())) == (504, "deadline")
    assert critic.batches == [("success_prob", 1)]


def test_sleep_lets_questions_wait_and_wake_answers_them(fakes, random_frames):
    critic = fakes.BrightnessCritic()
    frames = random_frames(2)

    async def scenario():
        async with running(critic) as (client, _):
            slept = await client.post("/v1/sleep")
            seen = (
                critic.is_asleep,
                (await client.get("/readyz")).status_code,
                (await client.get("/healthz")).status_code,
            )
            refused = await post(client, request_body(frames[:1], deadline_ms=50))
            waiting = asyncio.create_task(post(client, request_body(frames[1:])))
            await asyncio.sleep(0.05)
            assert critic.batches == []
            woken = await client.post("/v1/wake")
            return (
                slept.json(),
                seen,
                refused,
                await waiting,
                woken.json(),
                (await client.get("/readyz")).status_code,
            )

    slept, seen, refused, answered, woken, ready = asyncio.run(scenario())
    assert slept == {"protocol": 1, "state": "asleep", "has_sleep": True}
    assert seen == (True, 503, 200)
    assert reason_of(refused) == (503, "asleep")
    assert answered.status_code == 200
    assert (woken["state"], ready) == ("awake", 200)


def test_a_critic_that_can_not_wake_stays_asleep(fakes):
    critic = fakes.BrightnessCritic()

    def wake() -> None:
        raise MemoryError("the trainer still holds the card")

    critic.wake = wake

    async def scenario():
        async with running(critic) as (client, service):
            await client.post("/v1/sleep")
            failed = await client.post("/v1/wake", headers=HEADERS)
            return failed, service.batcher.state

    failed, state = asyncio.run(scenario())
    assert reason_of(failed) == (500, "out_of_memory")
    assert state == "asleep"


def test_a_token_is_demanded_everywhere_but_at_the_probes(fakes, random_frames):
    body = request_body(random_frames(1))

    async def scenario():
        async with running(fakes.BrightnessCritic(), token="right-token") as (client, _):
            open_paths = [
                (await client.get(path)).status_code for path in ("/healthz", "/readyz", "/openapi.json")
            ]
            closed = [(await client.get(path)).status_code for path in ("/metrics", "/v1/info", "/nothing")]
            posts = [
                (await post(client, body, **headers)).status_code
                for headers in (
                    {},
                    {"authorization": "Bearer wrong-token"},
                    {"authorization": "Basic right-token"},
                    {"authorization": "Bearer right-token"},
                )
            ]
            return open_paths, closed, posts, (await client.post("/v1/sleep")).status_code

    assert asyncio.run(scenario()) == ([200, 200, 200], [401, 401, 401], [401, 401, 401, 200], 401)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content-type": "application/json"}, (415, "unsupported_media")),
        ({"content-encoding": "gzip"}, (415, "unsupported_media")),
        ({"content-length": "-1"}, (411, "length_required")),
        ({"content-length": "9" * 30}, (413, "too_large")),
        ({"content-length": "1001"}, (413, "too_large")),
        ({"content-length": "3"}, (400, "malformed")),
        ({"content-length": "900"}, (400, "malformed")),
    ],
)
def test_headers_that_promise_something_else_are_refused(fakes, headers, expected):
    async def scenario():
        async with running(fakes.BrightnessCritic(), limits=Limits(max_body_bytes=1000)) as (client, _):
            return await post(client, pack({"protocol": 1}), **headers)

    assert reason_of(asyncio.run(scenario())) == expected


def test_requests_and_bytes_in_work_are_bounded(fakes, random_frames):
    frames = random_frames(3)
    limits = Limits(max_concurrent_requests=2)

    async def scenario():
        async with running(fakes.BrightnessCritic(delay_s=0.1), limits=limits) as (client, service):
            posts = [asyncio.create_task(post(client, request_body([frame]))) for frame in frames]
            replies = await asyncio.gather(*posts)
            return sorted(reply.status_code for reply in replies), service.requests_in_work

    assert asyncio.run(scenario()) == ([200, 200, 503], 0)


def test_wrong_paths_and_methods_are_typed(fakes):
    async def scenario():
        async with running(fakes.BrightnessCritic()) as (client, _):
            nowhere = await client.get("/v1/../etc/passwd", headers=HEADERS)
            wrong = await client.get("/v1/value", headers=HEADERS)
            readable = await client.get("/nowhere")
            return nowhere, wrong, readable

    nowhere, wrong, readable = asyncio.run(scenario())
    assert reason_of(nowhere) == (404, "not_found")
    assert reason_of(wrong) == (405, "method_not_allowed")
    assert readable.headers["content-type"] == "application/json"
    assert readable.json()["error"]["type"] == "CriticProtocolError"


def test_a_critic_that_reads_the_simulator_is_refused():
    service = CriticService(OracleCritic, ServiceConfig())
    with pytest.raises(ConfigError, match="reads the simulator's state"):
        asyncio.run(service.load())
    assert isinstance(service.load_error, ConfigError)


def test_info_tells_critic_protocol_and_limits(fakes):
    async def scenario():
        async with running(fakes.BrightnessCritic(), max_batch=7) as (client, service):
            return (await client.get("/v1/info")).json(), service

    info, service = asyncio.run(scenario())
    assert info["protocol"] == 1
    assert info["info"] == {
        "name": "brightness",
        "model": "mean",
        "prompt_version": "1",
        "device": "cpu",
        "details": {"scale": 255},
    }
    assert (info["state"], info["max_batch"], info["critic"]) == ("awake", 7, service.critic_id)
    assert info["limits"]["max_frames"] == 2048


def test_metrics_count_what_happened(fakes, random_frames):
    frames = random_frames(3)

    async def scenario():
        async with running(fakes.BrightnessCritic()) as (client, _):
            await post(client, request_body(frames))
            await post(client, request_body(frames, attach=False))
            await post(client, b"junk")
            return (await client.get("/metrics")).text

    page = asyncio.run(scenario()).splitlines()
    for line in (
        'vlac_requests_total{operation="/v1/success_prob",status="200"} 2.0',
        'vlac_requests_total{operation="/v1/success_prob",status="400"} 1.0',
        'vlac_failures_total{reason="malformed"} 1.0',
        'vlac_batch_items_sum{operation="success_prob"} 6.0',
        'vlac_model_seconds_count{operation="success_prob"} 2.0',
        "vlac_frame_hits_total 3.0",
        "vlac_frame_misses_total 0.0",
        "vlac_frame_store_bytes 576.0",
        "vlac_queue_items 0.0",
        "vlac_requests_in_work 0.0",
        "vlac_awake 1.0",
        "vlac_gpu_memory_bytes 0.0",
    ):
        assert line in page


def test_log_lines_carry_the_request_id_of_the_caller(fakes, caplog):
    async def scenario():
        async with running(fakes.BrightnessCritic()) as (client, _):
            good = await post(client, b"junk", **{"x-request-id": "my-id-1"})
            bad = await post(client, b"junk", **{"x-request-id": 'evil"\n{}'.replace("\n", "")})
            return good.headers["x-request-id"], bad.headers["x-request-id"], unpack(good.content)

    with caplog.at_level(logging.INFO, logger="vlac_gym.service.gate"):
        good, bad, message = asyncio.run(scenario())
    assert good == message["error"]["request_id"] == "my-id-1"
    assert bad.isalnum()
    record = next(record for record in caplog.records if record.fields["request_id"] == "my-id-1")
    assert (record.fields["status"], record.fields["reason"], record.fields["path"]) == (
        400,
        "malformed",
        "/v1/success_prob",
    )


def test_the_openapi_page_names_every_route_field_and_reason(fakes, random_frames):
    async def scenario():
        async with running(fakes.BrightnessCritic()) as (client, _):
            return (await client.get("/openapi.json")).json()

    page = asyncio.run(scenario())
    assert sorted(page["paths"]) == [
        "/healthz",
        "/metrics",
        "/readyz",
        "/v1/frames",
        "/v1/info",
        "/v1/progress",
        "/v1/sleep",
        "/v1/success_prob",
        "/v1/value",
        "/v1/wake",
    ]
    for operation in ("success_prob", "progress", "value"):
        route = page["paths"][f"/v1/{operation}"]["post"]
        schema = route["requestBody"]["content"]["application/msgpack"]["schema"]
        fields = {"after": (0,)} if operation == "progress" else {}
        sent = unpack(request_body(random_frames(1), operation, **fields))
        assert sorted(schema["required"]) == sorted(schema["properties"]) == sorted(sent)
    documented = {
        reason
        for route in page["paths"].values()
        for method in route.values()
        for status, reply in method["responses"].items()
        if status != "200"
        for reason in reply["description"].split("; ")
    }
    assert documented - set(ERROR_REASONS) <= {"Not Found"}
    assert set(ERROR_REASONS) - documented == {"not_found", "method_not_allowed"}
    assert "application/json" in json.dumps(page)


def test_thousands_of_requests_leave_no_memory_behind(fakes, random_frames):
    frames = random_frames(8)
    body, broken = request_body(frames), request_body(frames)[:-3]

    async def scenario():
        async with running(fakes.BrightnessCritic(), frame_store_bytes=2**12) as (client, service):

            async def burst(count: int) -> int:
                for _ in range(count):
                    await post(client, body)
                    await post(client, broken)
                gc.collect()
                return len(gc.get_objects())

            await burst(50)
            before = await burst(50)
            after = await burst(500)
            return after - before, service.batcher._queue.waiting, service.frames.held_bytes

    growth, waiting, held = asyncio.run(scenario())
    assert growth < 200
    assert (waiting, held) == (0, 8 * 192)
