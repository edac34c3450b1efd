"""What every request to the app passes: token, limits, types, metrics, logs, and an OpenAPI page that is true."""

import asyncio
import gc
import json
import logging

import pytest

from vlac_gym.critic.oracle import OracleCritic
from vlac_gym.errors import ConfigError
from vlac_gym.service.core import CriticService, ServiceConfig
from vlac_gym.service.messages import pack, unpack
from vlac_gym.service.protocol import Limits, Reply
from vlac_gym.service.wire_errors import ERROR_REASONS


def test_a_token_is_demanded_everywhere_but_at_the_probes(fakes, random_frames, asgi):
    body = asgi.request_body(random_frames(1))

    async def scenario():
        async with asgi.running(fakes.BrightnessCritic(), token="right-token") as (client, _):
            open_paths = [
                (await client.get(path)).status_code for path in ("/healthz", "/readyz", "/openapi.json")
            ]
            closed = [(await client.get(path)).status_code for path in ("/metrics", "/v1/info", "/nothing")]
            posts = [
                (await asgi.post(client, body, **headers)).status_code
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
    ],
)
def test_headers_that_promise_something_else_are_refused(fakes, headers, expected, asgi):
    async def scenario():
        async with asgi.running(fakes.BrightnessCritic(), limits=Limits(max_body_bytes=1000)) as (client, _):
            return await asgi.post(client, pack({"protocol": 1}), **headers)

    assert asgi.reason_of(asyncio.run(scenario())) == expected


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_body_of_another_length_than_promised_is_refused(fakes, random_frames, asgi, difference):
    body = asgi.request_body(random_frames(1))

    async def scenario():
        async with asgi.running(fakes.BrightnessCritic()) as (client, _):
            return await asgi.post(client, body, **{"content-length": str(len(body) + difference)})

    assert asgi.reason_of(asyncio.run(scenario())) == (400, "malformed")


def test_requests_and_bytes_in_work_are_bounded(fakes, random_frames, asgi):
    frames = random_frames(3)
    limits = Limits(max_concurrent_requests=2)

    async def scenario():
        async with asgi.running(fakes.BrightnessCritic(delay_s=0.1), limits=limits) as (client, service):
            posts = [asyncio.create_task(asgi.post(client, asgi.request_body([frame]))) for frame in frames]
            replies = await asyncio.gather(*posts)
            return sorted(reply.status_code for reply in replies), service.requests_in_work

    assert asyncio.run(scenario()) == ([200, 200, 503], 0)


def test_wrong_paths_and_methods_are_typed(fakes, asgi):
    async def scenario():
        async with asgi.running(fakes.BrightnessCritic()) as (client, _):
            nowhere = await client.get("/v1/../etc/passwd", headers=asgi.HEADERS)
            wrong = await client.get("/v1/value", headers=asgi.HEADERS)
            readable = await client.get("/nowhere")
            return nowhere, wrong, readable

    nowhere, wrong, readable = asyncio.run(scenario())
    assert asgi.reason_of(nowhere) == (404, "not_found")
    assert asgi.reason_of(wrong) == (405, "method_not_allowed")
    assert readable.headers["content-type"] == "application/json"
    assert readable.json()["error"]["type"] == "CriticProtocolError"


def test_a_critic_that_reads_the_simulator_is_refused():
    service = CriticService(OracleCritic, ServiceConfig())
    with pytest.raises(ConfigError, match="reads the simulator's state"):
        asyncio.run(service.load())
    assert isinstance(service.load_error, ConfigError)


def test_info_tells_critic_protocol_and_limits(fakes, asgi, monkeypatch):
    monkeypatch.setattr("vlac_gym.service.core.cuda_memory_bytes", lambda: 5.0 * 2**30)

    async def scenario():
        async with asgi.running(fakes.BrightnessCritic(), max_batch=7) as (client, service):
            return (await client.get("/v1/info")).json(), service

    info, service = asyncio.run(scenario())
    assert info["protocol"] == 1
    assert info["info"] == {
        "name": "brightness",
        "model": "mean",
        "prompt_version": "1",
        "device": "cpu",
        "details": {"scale": 255},
        "fingerprint": service.critic_id,
        "knows": {"tasks": None, "task_suites": None, "views": None, "inputs": None, "renderers": None},
        "inputs": [],
    }
    assert (info["state"], info["max_batch"], info["critic"]) == ("awake", 7, service.critic_id)
    assert info["limits"]["max_frames"] == 2048
    assert info["gpu_memory_bytes"] == 5.0 * 2**30


def test_metrics_count_what_happened(fakes, random_frames, asgi):
    frames = random_frames(3)

    async def scenario():
        async with asgi.running(fakes.BrightnessCritic()) as (client, _):
            await asgi.post(client, asgi.request_body(frames))
            await asgi.post(client, asgi.request_body(frames, attach=False))
            await asgi.post(client, b"junk")
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


def test_log_lines_carry_the_request_id_of_the_caller(fakes, caplog, asgi):
    async def scenario():
        async with asgi.running(fakes.BrightnessCritic()) as (client, _):
            good = await asgi.post(client, b"junk", **{"x-request-id": "my-id-1"})
            bad = await asgi.post(client, b"junk", **{"x-request-id": 'evil"\n{}'.replace("\n", "")})
            return good.headers["x-request-id"], bad.headers["x-request-id"], unpack(good.content)

    with caplog.at_level(logging.INFO, logger="vlac_gym.service.middleware"):
        good, bad, message = asyncio.run(scenario())
    assert good == message["error"]["request_id"] == "my-id-1"
    assert bad.isalnum()
    record = next(record for record in caplog.records if record.fields["request_id"] == "my-id-1")
    assert (record.fields["status"], record.fields["reason"], record.fields["path"]) == (
        400,
        "malformed",
        "/v1/success_prob",
    )


def test_the_openapi_page_names_every_route_field_and_reason(fakes, random_frames, asgi):
    async def scenario():
        async with asgi.running(fakes.BrightnessCritic()) as (client, _):
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
        sent = unpack(asgi.request_body(random_frames(1), operation, **fields))
        assert sorted(schema["required"]) == sorted(schema["properties"]) == sorted(sent)
        reply = route["responses"]["200"]["content"]["application/msgpack"]["schema"]
        assert sorted(reply["required"]) == sorted(reply["properties"]) == sorted(Reply.__struct_fields__)
    for path, kinds in (("/v1/value", 1), ("/v1/info", 2), ("/v1/sleep", 2), ("/v1/frames", 2)):
        (route,) = page["paths"][path].values()
        assert len(route["responses"]["200"]["content"]) == kinds
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


def test_thousands_of_requests_leave_no_memory_behind(fakes, random_frames, asgi):
    frames = random_frames(8)
    body, broken = asgi.request_body(frames), asgi.request_body(frames)[:-3]

    async def scenario():
        async with asgi.running(fakes.BrightnessCritic(), frame_store_bytes=2**12) as (client, service):

            async def burst(count: int) -> int:
                for _ in range(count):
                    await asgi.post(client, body)
                    await asgi.post(client, broken)
                gc.collect()
                return len(gc.get_objects())

            await burst(50)
            before = await burst(50)
            after = await burst(500)
            return after - before, service.batcher._queue.waiting, service.frames.held_bytes

    growth, waiting, held = asyncio.run(scenario())
    assert growth < 200
    assert (waiting, held) == (0, 8 * 192)
