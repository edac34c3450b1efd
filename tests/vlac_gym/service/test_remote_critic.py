"""`RemoteCritic` against a real server: the same answers as in process, over threads, forks and pickles."""

import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vlac_gym.critic import make_critic
from vlac_gym.critic.base import Critic
from vlac_gym.errors import ConfigError, CriticConnectionError, CriticProtocolError, CriticTimeoutError
from vlac_gym.service.client import RemoteCritic
from vlac_gym.service.client_config import ClientConfig
from vlac_gym.service.served import describe_served
from vlac_gym.types import CriticKnowledge


@pytest.fixture
def critic(server, connect) -> RemoteCritic:
    return connect(server.url)


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_all_answers_are_exactly_those_in_process(server, connect, fakes, random_frames, encoding):
    local = fakes.BrightnessCritic()
    remote = connect(server.url, encoding=encoding)
    for count in (0, 1, 2, 500):
        frames = random_frames(count, 9, 7, seed=count)
        tasks = ["open the drawer ü"] * count
        assert np.array_equal(remote.success_prob(frames, tasks), local.success_prob(frames, tasks))
        assert np.array_equal(remote.value(frames, "t"), local.value(frames, "t"))
        before, after, pair_tasks = frames[:-1], frames[1:], tasks[1:]
        for references in (None, random_frames(3, 4, 4, seed=9)):
            expected = local.progress(before, after, pair_tasks, references)
            assert np.array_equal(remote.progress(before, after, pair_tasks, references), expected)
    assert remote.success_prob([], []).dtype == np.float32


def test_episodes_of_mixed_sizes_are_judged_in_one_request(critic, fakes, random_frames):
    episodes = [random_frames(3, 4, 5), [], random_frames(1, 8, 8, seed=1), random_frames(70, 2, 2, seed=2)]
    tasks = ["a", "b", "c", "d"]
    local = fakes.BrightnessCritic()
    answers = critic.values(episodes, tasks)
    assert [a.tolist() for a in answers] == [
        local.value(frames, task).tolist() if frames else []
        for frames, task in zip(episodes, tasks, strict=True)
    ]
    assert critic.values([], []) == []


def test_the_value_list_of_judged_frames_carries_no_pixels(critic, random_frames):
    frames = random_frames(20, 64, 64)
    critic.success_prob(frames, ["t"] * 20)
    sent = critic.statistics["bytes_sent"]
    critic.value(frames, "t")
    assert critic.statistics["frames_sent"] == 20
    assert critic.statistics["bytes_sent"] - sent < 20 * 30


def test_frames_arrive_untouched_and_stay_untouched(critic, fakes, random_frames):
    (large,) = random_frames(1, 1200, 900)
    view = large[::-1, ::2]
    before = view.copy()
    assert critic.success_prob([view], ["t"]).tolist() == [np.float32(fakes.brightness(view))]
    assert np.array_equal(view, before)


def test_jpeg_is_judged_as_jpeg_and_only_when_asked_for(server, connect, fakes, random_frames):
    frames = random_frames(2, 32, 32)
    exact = fakes.BrightnessCritic().success_prob(frames, ["t"] * 2)
    with_jpeg = connect(server.url, encoding="jpeg", jpeg_quality=30)
    first = with_jpeg.success_prob(frames, ["t"] * 2)
    assert first.tolist() != exact.tolist()
    assert np.allclose(first, exact, atol=0.05)
    assert connect(server.url).success_prob(frames, ["t"] * 2).tolist() == exact.tolist()
    assert with_jpeg.success_prob(frames, ["t"] * 2).tolist() == first.tolist()
    assert with_jpeg.statistics["frames_sent"] == 2


@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg"])
def test_more_frames_than_a_server_unpacks_at_once_are_judged_all_the_same(
    start_server, connect, fakes, encoding
):
    server = start_server("--max-decoded-bytes", "2000")
    frames = [np.full((8, 8, 3), i, np.uint8) for i in range(40)]  # 192 bytes each, once unpacked
    remote, local = connect(server.url, encoding=encoding, jpeg_quality=100), fakes.BrightnessCritic()
    expected = [local.value(frames[:15], "t"), local.value(frames[15:], "t")]
    for got, want in zip(remote.values([frames[:15], frames[15:]], ["t", "t"]), expected, strict=True):
        assert np.allclose(got, want, atol=0.01 if encoding == "jpeg" else 0)
    assert remote.statistics["frames_sent"] == 40


def test_a_remote_critic_is_a_critic_and_not_privileged(critic, random_frames):
    assert isinstance(critic, Critic)
    assert not critic.describe().is_privileged


def test_it_is_described_as_the_critic_that_is_served(server, connect, fakes):
    critic, served = connect(server.url), fakes.BrightnessCritic().describe()
    found = critic.describe()
    for name in ("name", "model", "prompt_version", "device", "knows", "inputs", "fingerprint"):
        assert getattr(found, name) == getattr(served, name), name
    assert found.details["scale"] == 255  # the served critic's own details
    assert found.details["urls"] == [server.url]
    assert found.details["server"]["critic"] == critic.server_info()["critic"]


def test_servers_of_earlier_and_later_versions_are_described_too():
    info = {"name": "nano", "model": "m", "prompt_version": "v", "device": "cuda:0"}
    found = describe_served({"critic": "c1", "info": info}, ["http://h:1"])
    assert (found.name, found.device, found.fingerprint, found.details["urls"]) == (
        "nano",
        "cuda:0",
        "c1",
        ["http://h:1"],
    )
    later = info | {"knows": {"tasks": ["lift"], "moods": ["good"]}}
    assert describe_served({"critic": "c1", "info": later}, ["http://h:1"]).knows.tasks == ("lift",)


def test_a_description_waits_while_the_server_loads(start_server, connect):
    assert connect(start_server("--load-s", "1").url).describe().name == "brightness"


def test_nobody_at_the_address_is_described_as_unknown_at_once(connect, caplog):
    critic = connect("http://127.0.0.1:1")
    started_at = time.monotonic()
    found = critic.describe()
    assert time.monotonic() - started_at < 2.0
    assert (found.name, found.model, found.device) == ("remote", "http://127.0.0.1:1", "remote")
    assert (
        "which critic is served is unknown: No connection to the critic at http://127.0.0.1:1" in caplog.text
    )
    with pytest.raises(CriticConnectionError, match="attempt 1 of 10"):
        critic.server_info(retry=False)
    assert critic.statistics["failures"] == 2


def test_options_may_follow_the_url_in_a_spec(server):
    critic = make_critic(f"{server.url}?timeout_s=1.5,encoding=png,max_attempts=3", deadline_s=9)
    config = critic._config
    assert (config.timeout_s, config.encoding, config.max_attempts, config.deadline_s) == (1.5, "png", 3, 9)
    assert critic.describe().name == "brightness"
    critic.close()
    several = make_critic("https://one:1,http://two:2?timeout_s=2")
    assert repr(several) == "RemoteCritic('https://one:1,http://two:2')"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("http://h:1?token=secret-token", "Unknown http://HOST:PORT option 'token'.*token_file"),
        ("http://h:1?timeout_s=soon", "option timeout_s as float, got 'soon'"),
        ("http://h:1?timeout_s=-1", "timeout_s above 0"),
        ("http://h:1?encoding=jpg", "Unknown frame encoding 'jpg'"),
        ("http:?timeout_s=1", "Expected a critic's URL"),
    ],
)
def test_options_in_a_spec_are_checked_at_once(spec, text):
    with pytest.raises(ConfigError, match=text):
        make_critic(spec)


def test_what_the_served_critic_knows_and_is_reaches_the_client(start_server, connect, random_frames):
    remote = connect(start_server("--only-task", "open the drawer").url)
    remote.success_prob(random_frames(1), ["t"])
    info = remote.describe()
    assert info.knows == CriticKnowledge(tasks=("open the drawer",))
    assert info.inputs == ("goal_image",)
    assert info.fingerprint == remote.server_info()["critic"] == info.details["server"]["info"]["fingerprint"]


FRAME = np.zeros((2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    "ask",
    [
        lambda critic: critic.success_prob([FRAME.astype(np.float32)], ["t"]),
        lambda critic: critic.success_prob([FRAME], "t"),
        lambda critic: critic.progress([FRAME], [], ["t"]),
        lambda critic: critic.value([FRAME], " "),
    ],
    ids=["float frame", "one text for tasks", "lengths", "empty task"],
)
def test_bad_input_is_refused_before_anything_is_sent(ask, connect):
    critic = connect("http://127.0.0.1:1")
    with pytest.raises(ConfigError):
        ask(critic)
    assert critic.statistics["bytes_sent"] == 0


def test_it_survives_pickling_and_does_not_take_its_connection_along(critic, random_frames):
    frames = random_frames(2)
    expected = critic.success_prob(frames, ["t"] * 2)
    copy = pickle.loads(pickle.dumps(critic))
    assert copy.statistics["bytes_sent"] == 0
    assert np.array_equal(copy.success_prob(frames, ["t"] * 2), expected)
    copy.close()
    copy.close()
    assert np.array_equal(copy.success_prob(frames, ["t"] * 2), expected)
    copy.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_uses_connections_of_its_own(critic, random_frames):
    frames = random_frames(4)
    expected = critic.success_prob(frames, ["t"] * 4).tolist()
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def child() -> None:
        results.put(
            (critic.success_prob(frames, ["t"] * 4).tolist(), critic.statistics["frames_sent"], os.getpid())
        )

    children = [context.Process(target=child) for _ in range(2)]
    for process in children:
        process.start()
    assert critic.success_prob(frames, ["t"] * 4).tolist() == expected
    for process in children:
        process.join(20)
    answers = [results.get() for _ in children]
    assert [answer[:2] for answer in answers] == [(expected, 4)] * 2
    assert len({os.getpid(), *(answer[2] for answer in answers)}) == 3


def test_threads_share_one_critic(critic, fakes, random_frames):
    assert critic.takes_concurrent_calls
    frames = random_frames(64)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda frame: float(critic.success_prob([frame], ["t"])[0]), frames))
    assert answers == [np.float32(fakes.brightness(frame)) for frame in frames]


def test_the_servers_gpu_memory_is_told_and_unknown_where_it_says_nothing(critic, monkeypatch):
    assert critic.gpu_memory_bytes() == 0.0
    monkeypatch.setattr(critic, "server_info", lambda: {"gpu_memory_bytes": 3})
    assert critic.gpu_memory_bytes() == 3.0
    monkeypatch.setattr(critic, "server_info", dict)
    assert critic.gpu_memory_bytes() is None


def test_questions_wait_while_the_server_sleeps(critic, random_frames):
    frames = random_frames(1)
    expected = critic.success_prob(frames, ["t"])
    critic.sleep()
    assert critic.server_info()["state"] == "asleep"
    timer = threading.Timer(0.3, critic.wake)
    timer.start()
    assert np.array_equal(critic.success_prob(frames, ["t"]), expected)
    timer.join()


def test_questions_wait_while_the_server_loads(start_server, connect, random_frames):
    server = start_server("--load-s", "1.5")
    assert connect(server.url).success_prob(random_frames(1), ["t"]).shape == (1,)


def test_a_silent_server_costs_no_more_than_the_deadline(connect, random_frames):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        critic = connect(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.2, deadline_s=1.0)
        started_at = time.monotonic()
        with pytest.raises(CriticTimeoutError, match="No reply"):
            critic.success_prob(random_frames(1), ["t"])
        assert time.monotonic() - started_at < 2.0


def test_nobody_at_the_address_is_a_connection_error(connect, random_frames):
    critic = connect("http://127.0.0.1:1", max_attempts=2)
    text = r"attempt 2 of 2; servers: http://127.0.0.1:1\). Is `vlac-gym serve`"
    with pytest.raises(CriticConnectionError, match=text):
        critic.success_prob(random_frames(1), ["t"])


def test_options_go_before_what_a_given_config_says(random_frames):
    config = ClientConfig(max_attempts=1)
    with (
        RemoteCritic("http://127.0.0.1:1", config) as one,
        RemoteCritic("http://127.0.0.1:1", config, max_attempts=2) as two,
    ):
        for critic, text in ((one, "attempt 1 of 1"), (two, "attempt 2 of 2")):
            with pytest.raises(CriticConnectionError, match=text):
                critic.success_prob(random_frames(1), ["t"])


def test_the_token_comes_from_option_file_or_environment(
    start_server, connect, random_frames, tmp_path, monkeypatch
):
    server, frames = start_server("--token", "the-right-token"), random_frames(1)
    file = tmp_path / "token"
    file.write_text("the-right-token\n")
    answers = [
        connect(server.url, token="the-right-token").success_prob(frames, ["t"]).tolist(),
        connect(server.url, token_file=str(file)).success_prob(frames, ["t"]).tolist(),
    ]
    monkeypatch.setenv("VLAC_GYM_TOKEN_FILE", str(file))
    critic = make_critic(server.url)
    answers.append(critic.success_prob(frames, ["t"]).tolist())
    critic.close()
    assert answers == [answers[0]] * 3
    refused = connect(server.url, token="the-wrong-token")
    with pytest.raises(ConfigError, match=r"401 unauthorized.*token_file=PATH.*VLAC_GYM_TOKEN_FILE"):
        refused.success_prob(frames, ["t"])
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "unauthorized" in server.log
    assert "-token" not in server.log


def test_a_server_of_another_version_is_refused(start_server, connect, random_frames):
    critic = connect(start_server("--protocol", "2").url)
    with pytest.raises(CriticProtocolError, match="speaks protocol 2, this client 1"):
        critic.success_prob(random_frames(1), ["t"])


def test_two_servers_with_different_critics_are_refused(start_server, connect, random_frames):
    one, two = start_server(), start_server("--name", "other")
    critic = connect(f"{one.url},{two.url}", timeout_s=5)
    critic.success_prob(random_frames(1), ["t"])
    one.kill()
    with pytest.raises(CriticProtocolError, match="rewards of two critics would mix"):
        critic.success_prob(random_frames(1), ["t"])


@pytest.mark.parametrize(
    ("urls", "options", "text"),
    [
        ("ftp://x", {}, "Expected a critic's URL such as 'http://host:8400', got 'ftp://x'"),
        ("http://", {}, "got 'http://'"),
        ("http://host:port", {}, "Expected a critic's URL"),
        ("http://user:pw@host", {}, "Expected a critic's URL"),
        ("http://a,http://a/", {}, "distinct"),
        ([], {}, "Expected one URL"),
        ("http://a", {"retries": 3}, "Unknown options of a remote critic: retries"),
        ("http://a", {"token": "x", "token_file": "y"}, "token or token_file, got both"),
        ("http://a", {"token_file": "/nowhere/token"}, "Can't read a token from '/nowhere/token'"),
    ],
)
def test_addresses_and_options_are_checked_at_once(urls, options, text):
    with pytest.raises(ConfigError, match=text):
        RemoteCritic(urls, **options)
