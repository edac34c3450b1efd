import base64
import io
import json
import pickle
import random
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest
from PIL import Image

from vlac_gym.critic import retries
from vlac_gym.critic.engines.base import EngineRequest
from vlac_gym.critic.engines.openai import OpenAIEngine
from vlac_gym.critic.vlac.parsing import read_done
from vlac_gym.errors import (
    ConfigError,
    CriticConnectionError,
    CriticOverloadedError,
    CriticProtocolError,
    CriticResponseError,
    CriticServerError,
    CriticTimeoutError,
)

URL = "http://critic.test/v1"
RED, BLUE = (np.full((2, 3, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
DONE = EngineRequest("be brief", "is it done?", (RED,), answer="number", max_new_tokens=2)


def completion(text="1", logprob=-0.25):
    top = [{"token": "0", "logprob": -1.5}, {"token": text, "logprob": logprob}]
    token = {"token": text, "logprob": logprob, "bytes": None, "top_logprobs": top}
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "logprobs": {"content": [token]}}]
    }


class Server:
    """Answers with the given responses in turn, the last one again and again; records what it got."""

    def __init__(self, *responses):
        self.responses = list(responses)
        self.requests = []
        self.timeouts = []

    def __call__(self, request):
        self.requests.append(request)
        self.timeouts.append(request.extensions["timeout"]["read"])
        response = self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]
        if isinstance(response, Exception):
            raise response
        return response if isinstance(response, httpx.Response) else httpx.Response(200, json=response)

    @property
    def bodies(self):
        return [json.loads(request.content) for request in self.requests]


def make_engine(server, **options):
    options = {"backoff_s": 0.0, "image_size": None} | options
    return OpenAIEngine(URL, "vlac", transport=httpx.MockTransport(server), **options)


def picture_of(part):
    head, _, data = part["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_request_asks_for_a_greedy_reply_with_ten_candidates():
    server = Server(completion())
    make_engine(server).generate([DONE])
    (body,) = server.bodies
    content = body.pop("messages")
    assert body == {"model": "vlac", "max_tokens": 2, "temperature": 0, "logprobs": True, "top_logprobs": 10}
    assert content[0] == {"role": "system", "content": "be brief"}
    assert str(server.requests[0].url) == "http://critic.test/v1/chat/completions"


def test_frames_stand_where_their_marks_are():
    server = Server(completion())
    make_engine(server).generate([EngineRequest("", "one <image>\ntwo <image> three", (RED, BLUE))])
    (message,) = server.bodies[0]["messages"]
    assert [part.get("text", "picture") for part in message["content"]] == [
        "one ",
        "picture",
        "\ntwo ",
        "picture",
        " three",
    ]
    np.testing.assert_array_equal(picture_of(message["content"][1]), RED)
    np.testing.assert_array_equal(picture_of(message["content"][3]), BLUE)


def test_white_space_between_frames_is_kept():
    server = Server(completion())
    make_engine(server).generate([EngineRequest("", "<image>\n <image>", (RED, BLUE))])
    assert server.bodies[0]["messages"][0]["content"][1] == {"type": "text", "text": "\n "}


def test_frames_without_marks_come_before_the_text():
    server = Server(completion())
    make_engine(server).generate([EngineRequest("", "which?", (RED, BLUE))])
    kinds = [part["type"] for part in server.bodies[0]["messages"][0]["content"]]
    assert kinds == ["image_url", "image_url", "text"]


def test_frames_are_sent_as_squares_of_the_model_size():
    server = Server(completion())
    make_engine(server, image_size=4).generate([DONE])
    picture = picture_of(server.bodies[0]["messages"][1]["content"][0])
    assert picture.shape == (4, 4, 3)
    assert (picture == (255, 0, 0)).all()
    assert RED.shape == (2, 3, 3)


def test_reply_holds_text_tokens_and_sorted_candidates():
    (reply,) = make_engine(Server(completion("7", -0.5))).generate([DONE])
    assert reply.text == "7"
    (token,) = reply.tokens
    assert (token.token, token.logprob) == ("7", -0.5)
    assert [(one.token, one.logprob) for one in token.candidates] == [("7", -0.5), ("0", -1.5)]


def logprobs(said, logprob, *listed):
    top = [{"token": token, "logprob": one} for token, one in listed]
    token = {"token": said, "logprob": logprob, "bytes": None, "top_logprobs": top}
    return {"choices": [{"message": {"content": said}, "logprobs": {"content": [token]}}]}


@pytest.mark.parametrize(
    ("said", "logprob", "listed", "done"),
    [
        # 0.6 for "1", 0.4 for "0": the token said stands twice in the list, as vLLM writes it.
        ("1", np.log(0.6), [("1", np.log(0.6)), ("1", np.log(0.6)), ("0", np.log(0.4))], 0.6),
        # Said and, at 0.75, far likelier than what is listed, but not listed itself.
        ("0", np.log(0.75), [("1", np.log(0.25))], 0.25),
        (
            "0",
            np.log(0.75),
            [(chr(97 + i), np.log(0.02)) for i in range(9)] + [("1", np.log(0.07))],
            0.07 / 0.82,
        ),
        # Ten likelier ones, none a number: the one said takes the last place.
        ("1", np.log(0.01), [(chr(97 + i), np.log(0.09)) for i in range(10)], 1.0),
    ],
    ids=["twice", "missing", "missing among ten", "eleventh"],
)
def test_the_token_said_counts_exactly_once(said, logprob, listed, done):
    (reply,) = make_engine(Server(logprobs(said, logprob, *listed))).generate([DONE])
    tokens = [one.token for one in reply.tokens[0].candidates]
    assert len(tokens) == len(set(tokens)) <= 10
    assert read_done(reply, "exact") == pytest.approx(done, abs=1e-9)


@pytest.mark.parametrize("logprob", [-9999.0, -1e5])
def test_a_token_said_without_a_probability_is_not_read_as_its_opposite(logprob):
    (reply,) = make_engine(Server(logprobs("0", logprob, ("1", np.log(0.9))))).generate([DONE])
    for reading in ("rich", "exact"):
        with pytest.raises(CriticResponseError, match="the token '0' among its own candidates"):
            read_done(reply, reading)
    assert read_done(reply, "plain") == 0.0


class Recording(BaseHTTPRequestHandler):
    """Answers every POST with `server.answer`, and notes the request lines."""

    def do_POST(self):
        self.server.lines.append(self.requestline)
        self.rfile.read(int(self.headers["content-length"]))
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def recording(status, body):
    with ThreadingHTTPServer(("127.0.0.1", 0), Recording) as server:
        server.lines, server.answer = [], (status, body)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_frames_pass_no_proxy_but_the_one_that_was_given(monkeypatch):
    with recording(200, json.dumps(completion()).encode()) as model, recording(503, b"busy") as proxy:
        url, proxy_url = (f"http://127.0.0.1:{one.server_port}" for one in (model, proxy))
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy_url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        engine = OpenAIEngine(f"{url}/v1", "vlac")
        assert engine.generate([DONE])[0].text == "1"
        engine.close()
        assert (len(model.lines), proxy.lines) == (1, [])
        given = OpenAIEngine(f"{url}/v1", "vlac", proxy=proxy_url, max_tries=1)
        with pytest.raises(CriticOverloadedError, match=f"through the proxy {proxy_url} answered 503"):
            given.generate([DONE])
        given.close()
        assert proxy.lines == [f"POST {url}/v1/chat/completions HTTP/1.1"]


def test_a_frame_of_several_requests_is_compressed_once(monkeypatch):
    from vlac_gym.critic.engines import openai

    compressed = []
    monkeypatch.setattr(openai, "png_data_url", lambda frame, side: compressed.append(frame) or "data:x")
    pair = EngineRequest("", "<image><image>", (RED, RED.copy()))
    make_engine(Server(completion())).generate([pair, pair, DONE])
    assert len(compressed) == 1


def test_replies_keep_the_order_of_requests_and_the_bound_on_concurrency():
    lock, under_way, most = threading.Lock(), [0], [0]
    both_here = threading.Barrier(2)

    def answer(request):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        both_here.wait(10)
        text = json.loads(request.content)["messages"][0]["content"][0]["text"]
        with lock:
            under_way[0] -= 1
        both_here.wait(10)
        return httpx.Response(200, json=completion(text))

    engine = make_engine(answer, max_concurrency=2)
    replies = engine.generate([EngineRequest("", str(n), ()) for n in range(6)])
    assert [reply.text for reply in replies] == ["0", "1", "2", "3", "4", "5"]
    assert most[0] == 2


def test_no_requests_cost_no_connection():
    assert make_engine(Server(completion())).generate([]) == []


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("closed"),
        httpx.ReadTimeout("slow"),
        httpx.Response(503),
        httpx.Response(429),
        httpx.Response(502),
        httpx.Response(504),
    ],
    ids=str,
)
def test_what_another_try_may_mend_is_tried_again(failure):
    server = Server(failure, completion())
    assert make_engine(server).generate([DONE])[0].text == "1"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (httpx.ConnectError("refused"), CriticConnectionError),
        (httpx.ReadTimeout("slow"), CriticTimeoutError),
        (httpx.Response(503, text="busy", headers={"retry-after": "0"}), CriticOverloadedError),
    ],
    ids=["connection", "timeout", "overload"],
)
def test_tries_are_bounded_and_the_last_error_says_how_many(failure, error):
    server = Server(failure)
    with pytest.raises(error, match=r"try 3 of 3") as caught:
        make_engine(server, max_tries=3).generate([DONE])
    assert len(server.requests) == 3
    if error is CriticOverloadedError:
        assert caught.value.retry_after_s == 0.0


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        (httpx.Response(500, text="out of memory"), CriticServerError, "500: 'out of memory'"),
        (httpx.Response(401), ConfigError, "api_key"),
        (httpx.Response(404), ConfigError, "the model's name 'vlac'"),
        (httpx.Response(400, text="no images"), CriticProtocolError, "no images"),
        (httpx.Response(200, text="<html>"), CriticProtocolError, "Expected JSON"),
        ({"error": "?"}, CriticProtocolError, "Expected a chat completion"),
        ([], CriticProtocolError, "Expected a chat completion"),
        ({"choices": [{"message": {"content": "1"}}]}, CriticProtocolError, "no log-probabilities"),
        (
            {"choices": [{"message": {"content": ""}, "logprobs": {"content": []}}]},
            CriticResponseError,
            "at least one token",
        ),
        (completion("1", None), CriticResponseError, "log-probability for token '1', got None"),
    ],
)
def test_what_no_other_try_mends_fails_at_once(failure, error, message):
    server = Server(failure)
    with pytest.raises(error, match=message):
        make_engine(server).generate([DONE])
    assert len(server.requests) == 1


def test_a_nan_is_never_taken_for_a_probability():
    text = json.dumps(completion("1", float("nan")))
    with pytest.raises(CriticResponseError, match="got nan"):
        make_engine(Server(httpx.Response(200, text=text))).generate([DONE])


def test_one_failed_request_fails_the_call():
    def answer(request):
        text = json.loads(request.content)["messages"][0]["content"][0]["text"]
        return httpx.Response(500) if text == "3" else httpx.Response(200, json=completion())

    with pytest.raises(CriticServerError):
        make_engine(answer).generate([EngineRequest("", str(n), ()) for n in range(8)])


class Clock:
    """Time that passes only in `sleep`."""

    def __init__(self):
        self.now, self.waits = 100.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(retries, "time", clock)
    return clock


def test_waits_double_and_vary_by_half(clock, monkeypatch):
    factors = iter([0.5, 1.5, 1.0])
    monkeypatch.setattr(retries._JITTER, "uniform", lambda low, high: next(factors))
    with pytest.raises(CriticConnectionError):
        make_engine(Server(httpx.ConnectError("refused")), backoff_s=0.2).generate([DONE])
    assert clock.waits == [0.1, 0.6000000000000001, 0.8]


def test_jitter_leaves_the_programs_random_numbers_alone(clock):
    random.seed(1)
    before = random.getstate()
    make_engine(Server(httpx.Response(503), completion()), backoff_s=0.1).generate([DONE])
    assert random.getstate() == before
    assert len(clock.waits) == 1


def test_the_server_may_ask_for_a_longer_wait(clock):
    server = Server(httpx.Response(503, headers={"retry-after": "7"}), completion())
    make_engine(server).generate([DONE])
    assert clock.waits == [7.0]


def test_tries_and_waits_share_one_deadline(clock):
    server = Server(httpx.Response(503, headers={"retry-after": "4"}))
    with pytest.raises(CriticOverloadedError, match="deadline 10 s"):
        make_engine(server, timeout_s=10.0, max_tries=100).generate([DONE])
    assert clock.waits == [4.0, 4.0]
    assert server.timeouts == [10.0, 6.0, 2.0]


def test_a_server_that_never_answers_is_given_up_in_time():
    import socket

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        engine = OpenAIEngine(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1", "vlac", timeout_s=0.3)
        with pytest.raises(CriticTimeoutError, match="No reply"):
            engine.generate([DONE])


def test_a_reply_that_trickles_for_ever_is_given_up_in_time():
    def trickle():
        while True:
            time.sleep(0.01)
            yield b" "

    engine = make_engine(lambda request: httpx.Response(200, content=trickle()), timeout_s=0.2)
    with pytest.raises(CriticTimeoutError, match="did not end in time"):
        engine.generate([DONE])


def test_a_reply_without_bound_is_refused():
    def flood():
        while True:
            yield b" " * (1 << 22)

    with pytest.raises(CriticProtocolError, match="at most 67108864 bytes"):
        make_engine(lambda request: httpx.Response(200, content=flood())).generate([DONE])


def test_a_key_is_sent_as_bearer_token_and_never_shown():
    server = Server(completion())
    engine = make_engine(server, api_key="secret")
    engine.generate([DONE])
    assert server.requests[0].headers["authorization"] == "Bearer secret"
    assert "secret" not in json.dumps(engine.describe())


def test_extra_fields_reach_the_server():
    server = Server(completion())
    extra = {"skip_special_tokens": False}
    engine = make_engine(server, extra_body=extra)
    extra.clear()  # what its owner does with it later is nothing to the engine
    engine.generate([DONE])
    assert server.bodies[0]["skip_special_tokens"] is False


def test_an_engine_travels_to_another_process_before_and_after_use():
    engine = pickle.loads(pickle.dumps(OpenAIEngine(URL, "vlac")))
    assert engine.describe() == {
        "name": "openai",
        "model": "vlac",
        "device": "remote",
        "url": f"{URL}/chat/completions",
    }
    used = OpenAIEngine(URL, "vlac", max_tries=1, timeout_s=0.2)
    used._connect()
    assert pickle.loads(pickle.dumps(used))._client is None
    used.close()


def test_a_closed_engine_says_so():
    engine = make_engine(Server(completion()))
    engine.generate([DONE])
    engine.close()
    engine.close()
    with pytest.raises(ConfigError, match="closed"):
        engine.generate([DONE])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (EngineRequest("", "<image>", ()), "1 marks for 0 frames"),
        (EngineRequest("", "done<|im_end|>", ()), "without chat or image tokens"),
        (EngineRequest("", "?", (np.zeros((2, 2, 3)),)), "uint8"),
    ],
)
def test_malformed_requests_are_refused_before_anything_is_sent(request_, message):
    server = Server(completion())
    with pytest.raises(ConfigError, match=message):
        make_engine(server).generate([DONE, request_])
    assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_url": "critic-host:8000"}, "http"),
        ({"model": ""}, "name of a model"),
        ({"timeout_s": 0}, "timeout_s > 0"),
        ({"max_concurrency": 0}, "max_concurrency >= 1"),
        ({"max_tries": 0}, "max_tries >= 1"),
        ({"backoff_s": -1}, "backoff_s >= 0"),
        ({"image_size": 0}, "image_size"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        OpenAIEngine(**({"base_url": URL, "model": "vlac"} | arguments))
