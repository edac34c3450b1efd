"""The client's rules without a network: retries, pauses, fail-over, versions, resending frames."""

from collections.abc import Callable

import numpy as np
import pytest

from vlac_gym.critic.base import frame_digest
from vlac_gym.errors import (
    ConfigError,
    CriticConnectionError,
    CriticError,
    CriticOverloadedError,
    CriticProtocolError,
    CriticResponseError,
    CriticServerError,
    CriticTimeoutError,
)
from vlac_gym.service.client_config import ClientConfig
from vlac_gym.service.decoding import decode_request, decode_upload
from vlac_gym.service.exchange import Exchange, HttpCall, HttpReply, Pause
from vlac_gym.service.messages import pack, unpack
from vlac_gym.service.protocol import Limits, Reply
from vlac_gym.service.question import progress_question, success_question, value_question
from vlac_gym.service.wire_errors import ERROR_REASONS, ServiceError, classify, decode_error, encode_error

ONE, TWO = "http://one", "http://two"


class World:
    """Answers an exchange's calls from a list, and keeps its clock."""

    def __init__(self, urls: tuple[str, ...] = (ONE,), **options: object) -> None:
        self.now = 0.0
        self.calls: list[HttpCall] = []
        self.pauses: list[float] = []
        self.exchange = Exchange(urls, ClientConfig(**options), clock=lambda: self.now, jitter=lambda: 1.0)

    def run(self, steps, answers: list[Callable[[HttpCall], HttpReply] | CriticError]):
        waiting = iter(answers)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                    step = steps.send(None)
                    continue
                self.calls.append(step)
                answer = next(waiting)
                step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer(step))
        except StopIteration as stop:
            assert list(waiting) == []
            return stop.value

    @property
    def paths(self) -> list[str]:
        return [call.url for call in self.calls]


def info(critic: str = "c", protocol: int = 1, **limits: int) -> Callable[[HttpCall], HttpReply]:
    message = {"protocol": protocol, "critic": critic, "info": {}, "limits": Limits(**limits)}
    return lambda call: HttpReply(200, pack(message))


def numbers(*values: float, critic: str = "c", instance: str = "i") -> Callable[[HttpCall], HttpReply]:
    reply = Reply(np.array(values, "<f4").tobytes(), instance, critic, 0.0, 0.0, 1, 1)
    return lambda call: HttpReply(200, pack(reply))


def refusal(reason: str, retry_after_s: float | None = None, missing=()) -> Callable[[HttpCall], HttpReply]:
    error = ServiceError(reason, "because", retry_after_s=retry_after_s, missing=missing)
    body = encode_error(error, instance="i", request_id="r1")
    return lambda call: HttpReply(error.status, body)


def ask(frames, tasks=None):
    return success_question(frames, tasks or ["t"] * len(frames), "raw", 95)


def test_the_first_question_checks_the_server_and_later_ones_do_not(random_frames):
    world, question = World(), ask(random_frames(1))
    assert world.run(world.exchange.ask(question), [info(), numbers(0.5)]).tolist() == [0.5]
    assert world.run(world.exchange.ask(question), [numbers(0.5)]).tolist() == [0.5]
    assert world.paths == [f"{ONE}/v1/info", f"{ONE}/v1/success_prob", f"{ONE}/v1/success_prob"]


def test_a_frame_is_sent_once(random_frames):
    world, frames = World(), random_frames(2)
    world.run(world.exchange.ask(ask(frames[:1])), [info(), numbers(0.5)])
    world.run(world.exchange.ask(ask(frames)), [numbers(0.5, 0.5)])
    sent = [unpack(call.body) for call in world.calls[1:]]
    assert [[p["index"] for p in message["pixels"]] for message in sent] == [[0], [1]]
    assert world.exchange.frames_sent == 2


def test_equal_frames_of_one_question_are_sent_once(random_frames):
    world, (frame,) = World(), random_frames(1)
    world.run(world.exchange.ask(ask([frame, frame.copy()])), [info(), numbers(0.5, 0.5)])
    message = unpack(world.calls[1].body)
    assert (message["digests"], message["frames"], len(message["pixels"])) == (
        [frame_digest(frame)],
        [0, 0],
        1,
    )


def test_frames_that_the_server_lost_are_resent_once(random_frames):
    world, frames = World(), random_frames(2)
    world.run(world.exchange.ask(ask(frames)), [info(), numbers(0.1, 0.2)])
    lost = refusal("missing_frames", missing=[frame_digest(frames[1])])
    assert world.run(world.exchange.ask(ask(frames)), [lost, numbers(0.1, 0.2)]).tolist() == [
        np.float32(0.1),
        np.float32(0.2),
    ]
    assert [[p["index"] for p in unpack(call.body)["pixels"]] for call in world.calls[2:]] == [[], [1]]
    assert world.pauses == []


def test_a_store_that_loses_frames_at_once_counts_as_overload(random_frames):
    world, frames = World(max_attempts=1), random_frames(1)
    lost = refusal("missing_frames", missing=[frame_digest(frames[0])])
    with pytest.raises(CriticOverloadedError, match="Raise --frame-store-mb"):
        world.run(world.exchange.ask(ask(frames)), [info(), lost, lost, lost])


@pytest.mark.parametrize(
    "error", [CriticConnectionError("gone"), CriticTimeoutError("late"), CriticOverloadedError("full")]
)
def test_transient_errors_are_retried_with_growing_pauses(random_frames, error):
    world = World()
    answers = [info(), error, error, error, numbers(0.5)]
    assert world.run(world.exchange.ask(ask(random_frames(1))), answers).tolist() == [0.5]
    assert world.pauses == [0.25, 0.5, 1.0]
    assert world.exchange.retries == 3


def test_attempts_are_bounded_and_the_last_error_says_how_many(random_frames):
    world = World(max_attempts=3)
    with pytest.raises(CriticConnectionError, match=r"gone \(attempt 3 of 3; servers: http://one\)"):
        world.run(world.exchange.ask(ask(random_frames(1))), [CriticConnectionError("gone")] * 3)


def test_the_deadline_ends_the_retries_before_the_attempts_do(random_frames):
    world = World(deadline_s=2.0, max_attempts=100)
    with pytest.raises(CriticConnectionError, match="attempt 4 of 100"):
        world.run(world.exchange.ask(ask(random_frames(1))), [CriticConnectionError("gone")] * 4)
    assert world.pauses == [0.25, 0.5, 1.0]


def test_an_attempt_never_outlives_the_deadline(random_frames):
    world = World(deadline_s=10.0, timeout_s=30.0)
    world.run(world.exchange.ask(ask(random_frames(1))), [info(), numbers(0.5)])
    assert [call.timeout_s for call in world.calls] == [10.0, 10.0]
    assert unpack(world.calls[1].body)["deadline_ms"] == 9500


def test_retry_after_is_honoured(random_frames):
    world = World()
    world.run(world.exchange.ask(ask(random_frames(1))), [info(), refusal("queue_full", 7.0), numbers(0.5)])
    assert world.pauses == [7.0]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (reason, kind)
        for reason, (_, kind) in ERROR_REASONS.items()
        if kind not in (CriticConnectionError, CriticTimeoutError, CriticOverloadedError)
        and reason != "missing_frames"
    ],
)
def test_other_errors_are_raised_at_once_as_what_they_are(random_frames, reason, kind):
    world = World()
    with pytest.raises(kind, match=rf"answered \d+ {reason}: because \[request r1\]") as caught:
        world.run(world.exchange.ask(ask(random_frames(1))), [info(), refusal(reason)])
    assert type(caught.value) is kind
    assert world.pauses == []


def test_the_next_server_is_asked_at_once_and_kept(random_frames):
    world, question = World((ONE, TWO)), ask(random_frames(1))
    answers = [info(), CriticConnectionError("gone"), info(), numbers(0.5)]
    world.run(world.exchange.ask(question), answers)
    world.run(world.exchange.ask(question), [numbers(0.5)])
    assert world.pauses == []
    assert world.paths[1:] == [
        f"{ONE}/v1/success_prob",
        f"{TWO}/v1/info",
        f"{TWO}/v1/success_prob",
        f"{TWO}/v1/success_prob",
    ]
    assert (world.exchange.retries, world.exchange.failovers) == (1, 1)


def test_a_server_with_another_critic_is_never_mixed_in(random_frames):
    world = World((ONE, TWO))
    answers = [info("c"), CriticConnectionError("gone"), info("d")]
    with pytest.raises(
        CriticProtocolError, match="critic at http://two is d, but earlier answers came from c"
    ):
        world.run(world.exchange.ask(ask(random_frames(1))), answers)


def test_a_server_restarted_with_another_critic_is_noticed(random_frames):
    world, question = World(), ask(random_frames(1))
    world.run(world.exchange.ask(question), [info("c"), numbers(0.5, critic="c")])
    with pytest.raises(CriticProtocolError, match="rewards of two critics would mix"):
        world.run(world.exchange.ask(question), [numbers(0.9, critic="d")])


def test_another_protocol_is_refused_at_first_contact(random_frames):
    world = World()
    with pytest.raises(CriticProtocolError, match="http://one speaks protocol 2, this client 1"):
        world.run(world.exchange.ask(ask(random_frames(1))), [info(protocol=2)])


def test_a_web_server_is_no_critic(random_frames):
    world = World()
    with pytest.raises(CriticProtocolError, match="no critic server's"):
        world.run(world.exchange.ask(ask(random_frames(1))), [lambda _: HttpReply(200, b"<html>")])


@pytest.mark.parametrize(
    ("status", "retry_after", "kind"),
    [
        (404, None, CriticProtocolError),
        (500, None, CriticServerError),
        (502, None, CriticConnectionError),
        (503, "3", CriticOverloadedError),
        (503, "Wed, 21 Oct", CriticOverloadedError),
        (504, None, CriticTimeoutError),
    ],
)
def test_a_proxys_own_errors_are_mapped_by_status(status, retry_after, kind):
    error = decode_error(status, b"<html>Bad Gateway</html>", "http://one/v1/value", retry_after)
    assert type(error) is kind
    assert "Bad Gateway" in str(error)
    if kind is CriticOverloadedError:
        assert error.retry_after_s == (3.0 if retry_after == "3" else None)


@pytest.mark.parametrize("values", [(0.5,), (0.5, 0.5, 0.5), (0.5, np.nan), (0.5, 1.5), (-0.1, 0.5)])
def test_answers_that_are_no_probabilities_are_refused(random_frames, values):
    world = World()
    with pytest.raises(CriticResponseError, match=r"as 2 numbers in \[0, 1\]"):
        world.run(world.exchange.ask(ask(random_frames(2))), [info(), numbers(*values)])


def test_no_frames_ask_nobody():
    world = World()
    assert world.run(world.exchange.ask(ask([])), []).tolist() == []


def test_long_questions_are_split_at_the_servers_limit(random_frames):
    world, frames = World(), random_frames(5)
    answer = world.run(
        world.exchange.ask(ask(frames)),
        [info(max_frames=2), numbers(0.1, 0.2), numbers(0.3, 0.4), numbers(0.5)],
    )
    assert answer.tolist() == np.array([0.1, 0.2, 0.3, 0.4, 0.5], np.float32).tolist()


def test_pairs_are_split_with_their_references(random_frames):
    frames = random_frames(8)
    question = progress_question(frames[:3], frames[3:6], ["t"] * 3, frames[6:], "raw", 95)
    parts = question.split(4)
    assert [part.items for part in parts] == [1, 1, 1]
    assert [part.digests for part in parts] == [
        (
            frame_digest(frames[i]),
            frame_digest(frames[i + 3]),
            frame_digest(frames[6]),
            frame_digest(frames[7]),
        )
        for i in range(3)
    ]


def test_episodes_are_split_between_and_never_inside(random_frames):
    frames = random_frames(6)
    question = value_question(
        [frames[:2], [], frames[2:5], frames[5:]], ["a", "b", "c", "d"], None, "raw", 95
    )
    assert [(part.lengths, part.tasks) for part in question.split(3)] == [
        ((2, 0), ("a", "b")),
        ((3,), ("c",)),
        ((1,), ("d",)),
    ]
    with pytest.raises(
        ConfigError, match="at most 2 frames in one value question, by the server's limit, got 3"
    ):
        question.split(2)


def test_bodies_beyond_the_limit_are_sent_ahead_in_parts(random_frames):
    world, frames = World(), random_frames(5)
    stored = lambda call: HttpReply(200, pack({"protocol": 1, "stored": 2, "instance": "i"}))  # noqa: E731
    answer = world.run(
        world.exchange.ask(ask(frames)),
        [info(max_body_bytes=500), stored, stored, numbers(0.1, 0.1, 0.1, 0.1, 0.1)],
    )
    assert len(answer) == 5
    assert [url.rpartition("/")[2] for url in world.paths] == ["info", "frames", "frames", "success_prob"]
    assert max(len(call.body) for call in world.calls) < 700


@pytest.mark.parametrize("operation", ["success_prob", "value"])
def test_frames_that_unpack_beyond_the_limit_are_sent_ahead_in_parts(operation):
    world = World()
    # 192 bytes each once unpacked, a fraction of that on the wire.
    frames = [np.full((8, 8, 3), i, np.uint8) for i in range(5)]
    question = success_question(frames, ["t"] * 5, "png", 95)
    if operation == "value":
        question = value_question([frames[:2], frames[2:]], ["a", "b"], None, "png", 95)
    stored = lambda call: HttpReply(200, pack({"protocol": 1, "stored": 2, "instance": "i"}))  # noqa: E731
    limits = Limits(max_decoded_bytes=400)
    answers = [info(max_decoded_bytes=400), stored, stored, numbers(*[0.1] * 5)]
    assert len(world.run(world.exchange.ask(question), answers)) == 5
    uploads = [decode_upload(call.body, limits) for call in world.calls[1:3]]
    last = decode_request(operation, world.calls[3].body, limits)
    assert [*(len(upload.pixels) for upload in uploads), len(last.pixels)] == [2, 2, 1]
    assert world.exchange.frames_sent == 5


def test_a_wait_beyond_the_servers_longest_is_cut_to_it(random_frames):
    world = World(timeout_s=900, deadline_s=1800)
    world.run(world.exchange.ask(ask(random_frames(1))), [info(), numbers(0.5)])
    assert [call.timeout_s for call in world.calls] == [900, 900]
    assert decode_request("success_prob", world.calls[1].body, Limits()).deadline_ms == 600_000


def test_every_retry_is_a_warning_and_every_failed_attempt_counts(random_frames, caplog):
    world = World((ONE, TWO), max_attempts=3)
    error = CriticConnectionError("gone")
    with caplog.at_level("WARNING", logger="vlac_gym"), pytest.raises(CriticConnectionError):
        world.run(world.exchange.ask(ask(random_frames(1))), [error] * 3)
    assert (world.exchange.failures, world.exchange.retries) == (3, 2)
    assert [record.getMessage() for record in caplog.records] == [
        "critic: gone (attempt 1 of 3); next at http://two in 0.0 s",
        "critic: gone (attempt 2 of 3); next at http://two in 0.2 s",
    ]


def test_a_look_waits_for_a_server_that_loads_and_for_no_lost_one():
    world = World((ONE, TWO))
    answers = [CriticConnectionError("gone"), refusal("loading", 2.0), info("d")]
    assert world.run(world.exchange.look(), answers)["critic"] == "d"
    assert world.paths == [f"{ONE}/v1/info", f"{TWO}/v1/info", f"{TWO}/v1/info"]
    assert world.pauses == [2.0]
    lost = World((ONE, TWO))
    with pytest.raises(CriticConnectionError, match=r"gone \(attempt 1 of 10; servers: http://two\)"):
        lost.run(lost.exchange.look(), [CriticConnectionError("gone")] * 2)
    assert lost.pauses == []


def awake(call):
    return HttpReply(200, pack({"protocol": 1, "state": "awake", "has_sleep": True}))


def test_a_server_that_cannot_sleep_is_named_and_keeps_no_other_awake():
    world = World((ONE, TWO), max_attempts=2)
    asleep = lambda call: HttpReply(200, pack({"protocol": 1, "state": "asleep", "has_sleep": True}))  # noqa: E731
    message = (
        r"^Expected 2 critic servers to sleep, got 1 that did not: gone \(attempt 2 of 2; servers: http://one\)\. .*"
        r"Mend that and call sleep\(\) again; it changes nothing for those that did\.$"
    )
    with pytest.raises(CriticConnectionError, match=message):
        world.run(world.exchange.switch("sleep"), [CriticConnectionError("gone")] * 2 + [asleep])
    assert world.paths == [f"{ONE}/v1/sleep", f"{ONE}/v1/sleep", f"{TWO}/v1/sleep"]


def test_a_wake_after_a_sleep_that_reached_one_of_two_names_each_that_failed():
    world = World((ONE, TWO), max_attempts=1)
    failed = [CriticConnectionError("one is gone"), refusal("asleep", 2.0)]
    message = r"to wake, got 2 that did not: one is gone.*http://one.*; .*http://two"
    with pytest.raises(CriticConnectionError, match=message):
        world.run(world.exchange.switch("wake"), failed)
    with pytest.raises(CriticOverloadedError, match=r"2 critic servers to wake, got 1") as raised:
        world.run(world.exchange.switch("wake"), [refusal("asleep", 2.0), awake])
    assert raised.value.retry_after_s == 2.0


def test_the_error_of_a_lone_server_is_its_own():
    world = World((ONE,), max_attempts=1)
    with pytest.raises(CriticConnectionError, match=r"^gone \(attempt 1 of 1; servers: http://one\)"):
        world.run(world.exchange.switch("wake"), [CriticConnectionError("gone")])


def test_sleep_reaches_every_server():
    world = World((ONE, TWO))
    asleep = lambda call: HttpReply(200, pack({"protocol": 1, "state": "asleep", "has_sleep": True}))  # noqa: E731
    world.run(world.exchange.switch("sleep"), [asleep, CriticConnectionError("gone"), asleep])
    assert world.paths == [f"{ONE}/v1/sleep", f"{TWO}/v1/sleep", f"{TWO}/v1/sleep"]


def test_the_token_is_sent_and_never_shown():
    config = ClientConfig(token="secret-token")
    assert "secret" not in repr(config)
    exchange = Exchange((ONE,), config)
    call = next(exchange.get_info())
    assert call.headers["authorization"] == "Bearer secret-token"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"timeout_s": 0}, "timeout_s above 0"),
        ({"max_attempts": 0}, "max_attempts above 0"),
        ({"deadline_s": float("nan")}, "deadline_s above 0"),
        ({"encoding": "jpg"}, "Unknown frame encoding 'jpg'.*Did you mean 'jpeg'"),
        ({"jpeg_quality": 101}, r"jpeg_quality in \[1, 100\]"),
    ],
)
def test_options_out_of_range_are_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        ClientConfig(**options)


def test_every_reason_reaches_the_client_as_its_exception():
    for reason, (status, kind) in ERROR_REASONS.items():
        body = encode_error(ServiceError(reason, "why"), instance="i", request_id="r")
        error = decode_error(status, body, "http://one/v1/value")
        assert isinstance(error, kind), reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConfigError("x"), "invalid_input"),
        (CriticResponseError("x"), "no_number"),
        (CriticConnectionError("x"), "upstream_connection"),
        (CriticTimeoutError("x"), "upstream_timeout"),
        (CriticOverloadedError("x", 2.0), "upstream_overloaded"),
        (CriticProtocolError("x"), "upstream_protocol"),
        (CriticServerError("x"), "model_failed"),
        (MemoryError(), "out_of_memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "out_of_memory"),
        (KeyError("x"), "model_failed"),
    ],
)
def test_what_the_critic_raises_has_a_reason(error, reason):
    assert classify(error).reason == reason
