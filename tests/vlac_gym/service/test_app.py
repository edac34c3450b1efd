"""Questions to an app in this process: batches, fairness, frames, failures, deadlines, sleep."""

import asyncio
import hashlib

import numpy as np
import pytest

from vlac_gym.critic.base import frame_digest
from vlac_gym.service.decoding import decode_reply
from vlac_gym.service.frame_codec import encode_frame
from vlac_gym.service.messages import pack, unpack
from vlac_gym.service.protocol import FrameUpload, Pixels


def test_concurrent_requests_of_many_clients_share_batches(fakes, random_frames, asgi):
    critic = fakes.BrightnessCritic(delay_s=0.02)
    frames = random_frames(40)

    async def scenario():
        async with asgi.running(critic, max_batch=16, max_wait_ms=20) as (client, _):
            bodies = [asgi.request_body([frame]) for frame in frames]
            posts = [asgi.post(client, body, **{"x-vlac-client": f"c{i}"}) for i, body in enumerate(bodies)]
            return [decode_reply(reply.content) for reply in await asyncio.gather(*posts)]

    replies = asyncio.run(scenario())
    assert [reply.numbers.tolist() for reply in replies] == [
        [np.float32(fakes.brightness(f))] for f in frames
    ]
    assert sum(count for _, count in critic.batches) == 40
    assert max(count for _, count in critic.batches) == 16
    assert len(critic.batches) <= 5
    assert max(reply.batch for reply in replies) == 16
    assert critic.is_closed


def test_one_clients_flood_does_not_hold_up_another(fakes, random_frames, asgi):
    critic = fakes.BrightnessCritic(delay_s=0.02)
    frames = random_frames(200)

    async def scenario():
        async with asgi.running(critic, max_batch=10) as (client, _):
            flood = asyncio.create_task(
                asgi.post(client, asgi.request_body(frames[:199]), **{"x-vlac-client": "flood"})
            )
            await asyncio.sleep(0.05)
            before = len(critic.batches)
            reply = await asgi.post(client, asgi.request_body(frames[199:]), **{"x-vlac-client": "small"})
            waited = len(critic.batches) - before
            await flood
            return reply.status_code, waited

    status, batches_waited = asyncio.run(scenario())
    assert status == 200
    assert batches_waited <= 2
    assert len(critic.batches) == 20


def test_known_frames_need_no_pixels_and_unknown_ones_are_named(fakes, random_frames, asgi):
    frames = random_frames(3)

    async def scenario():
        async with asgi.running(fakes.BrightnessCritic()) as (client, service):
            await asgi.post(client, asgi.request_body(frames[:2]))
            known = await asgi.post(client, asgi.request_body(frames[:2], "value", attach=False), "value")
            unknown = await asgi.post(client, asgi.request_body(frames, attach=False))
            return known, unknown, service.metrics.render().decode()

    known, unknown, metrics = asyncio.run(scenario())
    values = decode_reply(known.content).numbers
    assert values.tolist() == fakes.BrightnessCritic().value(frames[:2], "t").tolist()
    assert asgi.reason_of(unknown) == (409, "missing_frames")
    assert unpack(unknown.content)["error"]["missing"] == [frame_digest(frames[2])]
    assert "vlac_frame_hits_total 4.0" in metrics
    assert "vlac_frame_misses_total 1.0" in metrics


def test_frames_can_be_sent_ahead(fakes, random_frames, asgi):
    frames = random_frames(2)
    pixels = Pixels.of({i: encode_frame(frame, "png") for i, frame in enumerate(frames)})
    upload = pack(FrameUpload(tuple(frame_digest(frame) for frame in frames), pixels))

    async def scenario():
        async with asgi.running(fakes.BrightnessCritic()) as (client, _):
            stored = await asgi.post(client, upload, "frames")
            return stored, await asgi.post(client, asgi.request_body(frames, attach=False))

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
def test_a_failing_critic_gives_a_typed_error_and_goes_on(fakes, random_frames, task, expected, asgi):
    frames = random_frames(2)

    async def scenario():
        async with asgi.running(fakes.BrightnessCritic()) as (client, _):
            failed = await asgi.post(client, asgi.request_body(frames, task=task))
            return failed, await asgi.post(client, asgi.request_body(frames))

    failed, after = asyncio.run(scenario())
    assert asgi.reason_of(failed) == expected
    assert b"Traceback" not in failed.content
    assert after.status_code == 200


def test_one_clients_bad_question_does_not_fail_the_batch_of_others(fakes, random_frames, asgi):
    critic = fakes.BrightnessCritic()
    frames = random_frames(3)

    async def scenario():
        async with asgi.running(critic, max_wait_ms=200, max_batch=3) as (client, _):
            tasks = ("t", "fault: crash", "t")
            return await asyncio.gather(
                *(
                    asgi.post(client, asgi.request_body([frame], task=task), **{"x-vlac-client": str(i)})
                    for i, (frame, task) in enumerate(zip(frames, tasks, strict=True))
                )
            )

    replies = asyncio.run(scenario())
    assert [reply.status_code for reply in replies] == [200, 500, 200]
    assert critic.batches == [("success_prob", 3)] + [("success_prob", 1)] * 3


def test_the_queue_is_bounded_and_says_when_to_come_back(fakes, random_frames, asgi):
    frames = random_frames(8)

    async def scenario():
        async with asgi.running(fakes.BrightnessCritic(delay_s=0.1), max_queue=4, max_batch=1) as (client, _):
            first = asyncio.create_task(asgi.post(client, asgi.request_body(frames[:2])))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(
                asgi.post(client, asgi.request_body(frames[2:5]), **{"x-vlac-client": "b"})
            )
            await asyncio.sleep(0.01)
            third = await asgi.post(client, asgi.request_body(frames[5:8]), **{"x-vlac-client": "c"})
            return (await first).status_code, (await second).status_code, third

    first, second, third = asyncio.run(scenario())
    assert (first, second) == (200, 200)
    assert asgi.reason_of(third) == (503, "queue_full")
    assert int(third.headers["retry-after"]) >= 1


def test_a_question_that_waits_too_long_gets_a_timeout_and_is_not_asked(fakes, random_frames, asgi):
    critic = fakes.BrightnessCritic(delay_s=0.3)
    frames = random_frames(2)

    async def scenario():
        async with asgi.running(critic, max_batch=1, max_wait_ms=0) as (client, _):
            slow = asyncio.create_task(asgi.post(client, asgi.request_body(frames[:1])))
            await asyncio.sleep(0.05)
            late = await asgi.post(client, asgi.request_body(frames[1:], deadline_ms=50))
            await slow
            return late

    assert asgi.reason_of(asyncio.run(scenario())) == (504, "deadline")
    assert critic.batches == [("success_prob", 1)]


def test_sleep_lets_questions_wait_and_wake_answers_them(fakes, random_frames, asgi):
    critic = fakes.BrightnessCritic()
    frames = random_frames(2)

    async def scenario():
        async with asgi.running(critic) as (client, _):
            slept = await client.post("/v1/sleep")
            seen = (
                critic.is_asleep,
                (await client.get("/readyz")).status_code,
                (await client.get("/healthz")).status_code,
            )
            refused = await asgi.post(client, asgi.request_body(frames[:1], deadline_ms=50))
            waiting = asyncio.create_task(asgi.post(client, asgi.request_body(frames[1:])))
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
    assert asgi.reason_of(refused) == (503, "asleep")
    assert answered.status_code == 200
    assert (woken["state"], ready) == ("awake", 200)


def test_a_critic_that_can_not_wake_stays_asleep(fakes, asgi):
    critic = fakes.BrightnessCritic()

    def wake() -> None:
        raise MemoryError("the trainer still holds the card")

    critic.wake = wake

    async def scenario():
        async with asgi.running(critic) as (client, service):
            await client.post("/v1/sleep")
            failed = await client.post("/v1/wake", headers=asgi.HEADERS)
            return failed, service.batcher.state

    failed, state = asyncio.run(scenario())
    assert asgi.reason_of(failed) == (500, "out_of_memory")
    assert state == "asleep"


@pytest.mark.parametrize("path", ["sleep", "wake"])
def test_a_critic_that_fell_asleep_half_way_is_told_again(fakes, asgi, path):
    critic = fakes.BrightnessCritic()
    told = []

    def sleep() -> None:
        told.append("sleep")
        if len(told) == 1:
            raise MemoryError("no room on the host")

    critic.sleep, critic.wake = sleep, lambda: told.append("wake")

    async def scenario():
        async with asgi.running(critic) as (client, service):
            failed = await client.post("/v1/sleep", headers=asgi.HEADERS)
            between = service.batcher.state
            again = [(await client.post(f"/v1/{path}")).json()["state"] for _ in range(2)]
            return failed, between, again

    failed, between, again = asyncio.run(scenario())
    assert asgi.reason_of(failed) == (500, "out_of_memory")
    assert between == "asleep"
    assert again == [{"sleep": "asleep", "wake": "awake"}[path]] * 2
    assert told == ["sleep", path]


def test_the_server_hashes_a_frame_once_however_often_it_is_asked_for(
    fakes, random_frames, asgi, monkeypatch
):
    class CachingCritic(fakes.BrightnessCritic):
        def success_prob(self, frames, tasks):
            self.seen = [frame_digest(frame) for frame in frames]
            return super().success_prob(frames, tasks)

    critic, frames = CachingCritic(), random_frames(3)
    bodies = [asgi.request_body(frames), asgi.request_body(frames, attach=False)]
    hashed = []
    blake2b = hashlib.blake2b

    def counting(data, **options):
        hashed.append(memoryview(data).nbytes)
        return blake2b(data, **options)

    monkeypatch.setattr(hashlib, "blake2b", counting)

    async def scenario():
        async with asgi.running(critic) as (client, _):
            return [(await asgi.post(client, body)).status_code for body in bodies]

    assert asyncio.run(scenario()) == [200, 200]
    assert hashed.count(frames[0].nbytes) == 3
    assert critic.seen == [frame_digest(frame) for frame in frames]
