"""Episodes judged through a real server while it is killed, paused, cut off, starved and shut down.

The env's frames name their step, so a lost, doubled or invented step shows: every test compares the whole
history with that of the same critic in this process.
"""

import contextlib
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym
import numpy as np
import pytest

from vlac_gym.critic.base import Critic
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError, CriticError, CriticProtocolError, CriticServerError
from vlac_gym.wrappers import VLACRewardWrapper

ACTION = np.zeros(7, np.float32)
STEPS = 12

History = list[tuple[float, bool, bool, dict[str, object]]]


class ShadedEnv(gym.ObservationWrapper):
    """Brightens the scripted frame with the step, so that every step has a `success_prob` of its own."""

    def observation(self, observation):
        step = int(observation["state"][0])
        shaded = np.minimum(255, observation["agentview_image"].astype(int) + 9 * step).astype(np.uint8)
        return observation | {"agentview_image": shaded}


def make_env(critic: Critic, env: gym.Env | None = None, **options: object) -> VLACRewardWrapper:
    env = ShadedEnv(ScriptedEnv(max_episode_steps=STEPS, image_size=16)) if env is None else env
    return VLACRewardWrapper(env, critic, value_stride=2, **options)


def play(
    env: VLACRewardWrapper, before_step: Callable[[int], None] = lambda step: None, task: str = "t"
) -> History:
    """One episode; entries are reward, terminated, truncated and what the critic said."""
    env.reset(seed=0, options={"init_state_id": 0} if env.unwrapped.spec is not None else None)
    history: History = []
    for step in range(1, 100):
        before_step(step)
        _, reward, terminated, truncated, info = env.step(ACTION)
        report = {k: v for k, v in info["critic"].items() if k != "latency_ms"}
        history.append((reward, terminated, truncated, report))
        if terminated or truncated:
            return history
    raise AssertionError("the episode did not end")


@pytest.fixture(scope="module")
def undisturbed(fakes) -> History:
    history = play(make_env(fakes.BrightnessCritic()))
    assert len(history) == STEPS
    assert len({entry[3]["success_prob"] for entry in history}) == STEPS
    assert 0 < history[-1][0] < 1
    return history


def at(step: int, action: Callable[[], None]) -> Callable[[int], None]:
    return lambda now: action() if now == step else None


def later(seconds: float, action: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def test_a_server_killed_and_restarted_mid_episode_changes_nothing(start_server, connect, undisturbed):
    server = start_server()
    critic = connect(server.url, max_attempts=100)
    restarts: list[threading.Timer] = []

    def kill() -> None:
        server.kill()
        restarts.append(later(0.5, server.start))

    assert play(make_env(critic), at(7, kill)) == undisturbed
    assert critic.statistics["retries"] > 0
    restarts[0].join()


def test_a_server_killed_while_it_judges_changes_nothing(start_server, connect, undisturbed):
    server = start_server("--delay-s", "0.4")
    critic = connect(server.url, max_attempts=100)
    timers: list[threading.Timer] = []

    def kill_in_the_middle() -> None:
        timers.append(later(0.2, lambda: (server.kill(), server.start())))

    assert play(make_env(critic), at(3, kill_in_the_middle)) == undisturbed
    assert critic.statistics["retries"] > 0
    timers[0].join()


def test_a_libero_episode_outlives_its_server(start_server, connect, fakes, libero_env):
    local = play(make_env(fakes.BrightnessCritic(), libero_env, max_episode_steps=6))
    server = start_server()
    critic = connect(server.url, max_attempts=100)
    restarts: list[threading.Timer] = []

    def kill() -> None:
        server.kill()
        restarts.append(later(0.1, server.start))

    remote = play(make_env(critic, libero_env, max_episode_steps=6), at(3, kill))
    assert remote == local
    assert len(remote) == 6
    assert critic.statistics["retries"] > 0
    restarts[0].join()


@pytest.mark.parametrize(
    ("pause_s", "timeout_s"),
    [
        (1.5, 0.7),
        pytest.param(20.0, 30.0, marks=pytest.mark.slow),
        pytest.param(20.0, 3.0, marks=pytest.mark.slow),
    ],
)
def test_a_paused_server_delays_and_changes_nothing(start_server, connect, undisturbed, pause_s, timeout_s):
    server = start_server()
    critic = connect(server.url, timeout_s=timeout_s)
    timers: list[threading.Timer] = []

    def pause() -> None:
        server.signal(signal.SIGSTOP)
        timers.append(later(pause_s, lambda: server.signal(signal.SIGCONT)))

    started_at = time.monotonic()
    assert play(make_env(critic), at(5, pause)) == undisturbed
    assert time.monotonic() - started_at >= pause_s
    assert (critic.statistics["retries"] > 0) == (timeout_s < pause_s)
    timers[0].join()


class CuttingProxy:
    """Passes connections on to a server, and resets those whose turn it is after so many bytes.

    Args:
        url: The server.
        cuts: Number of a connection -> (direction, bytes after which it is reset); `up` is the request.
    """

    def __init__(self, url: str, cuts: dict[int, tuple[str, int]]) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._cuts = cuts
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.resets = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(5)
        for one in (self._listener, *self._sockets):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            cut = self._cuts.get(self.connections, ("", 0))
            self.connections += 1
            self._sockets += [client, server]
            for source, sink, direction in ((client, server, "up"), (server, client, "down")):
                limit = cut[1] if cut[0] == direction else None
                thread = threading.Thread(target=self._pass_on, args=(source, sink, client, limit))
                self._threads.append(thread)
                thread.start()

    def _pass_on(
        self, source: socket.socket, sink: socket.socket, client: socket.socket, limit: int | None
    ) -> None:
        passed = 0
        try:
            while data := source.recv(65536):
                passed += len(data)
                if limit is not None and passed > limit:
                    sink.sendall(data[: len(data) - (passed - limit)])
                    self.resets += 1
                    # Linger 0: close() sends RST instead of FIN.
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.shutdown(socket.SHUT_RD)
                    client.close()
                    sink.shutdown(socket.SHUT_RDWR)
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


@pytest.fixture
def cutting_proxy() -> Iterator[Callable[..., CuttingProxy]]:
    proxies: list[CuttingProxy] = []

    def make(url: str, cuts: dict[int, tuple[str, int]]) -> CuttingProxy:
        proxies.append(CuttingProxy(url, cuts))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


@pytest.mark.parametrize("direction", ["up", "down"])
def test_connections_reset_mid_body_change_nothing(server, connect, cutting_proxy, undisturbed, direction):
    cuts = {0: (direction, 1500), 1: (direction, 900), 3: (direction, 2500)}
    proxy = cutting_proxy(server.url, cuts)
    critic = connect(proxy.url)
    assert play(make_env(critic)) == undisturbed
    assert proxy.resets >= 2
    assert critic.statistics["retries"] >= proxy.resets


def test_slow_senders_are_cut_off_and_hold_up_nobody(start_server, connect, undisturbed):
    server = start_server("--header-timeout-s", "0.5", "--body-timeout-s", "0.5")
    host, _, port = server.url.removeprefix("http://").partition(":")
    half_headers = b"POST /v1/value HTTP/1.1\r\nHost: x\r\nX-Slow: "
    half_body = (
        b"POST /v1/value HTTP/1.1\r\nHost: x\r\nContent-Type: application/msgpack\r\n"
        b"Accept: application/msgpack\r\nContent-Length: 1000\r\n\r\n" + b"x" * 10
    )
    lorises = [socket.create_connection((host, int(port)), timeout=10) for _ in range(20)]
    for i, loris in enumerate(lorises):
        loris.sendall(half_headers if i % 2 else half_body)
    assert play(make_env(connect(server.url))) == undisturbed
    for i, loris in enumerate(lorises):
        reply = b""
        while chunk := loris.recv(4096):
            reply += chunk
        assert (reply == b"") if i % 2 else (b"408" in reply and b"slow_body" in reply)
        loris.close()


def test_a_wrong_token_is_told_before_the_episode_begins(start_server, connect):
    server = start_server("--token", "the-right-token")
    env = make_env(connect(server.url, token="the-wrong-token"), on_critic_error="truncate")
    with pytest.raises(ConfigError, match="401 unauthorized"):
        env.reset(seed=0)  # which asks what the critic knows


def test_a_wrong_version_is_told_before_the_episode_begins_and_is_not_retried(start_server, connect):
    critic = connect(start_server("--protocol", "2").url)
    env = make_env(critic)
    with pytest.raises(CriticProtocolError, match="speaks protocol 2"):
        env.reset(seed=0)  # which asks what the critic knows
    assert critic.statistics["retries"] == 0


@pytest.mark.parametrize(
    ("fault", "reason"), [("fault: memory", "out_of_memory"), ("fault: crash", "model_failed")]
)
def test_a_model_out_of_memory_loses_the_episode_and_not_the_server(
    server, connect, undisturbed, fault, reason
):
    critic = connect(server.url)
    failing = make_env(critic, ShadedEnv(ScriptedEnv(max_episode_steps=STEPS, image_size=16, task=fault)))
    failing.reset(seed=0)
    with pytest.raises(CriticServerError, match=f"500 {reason}"):
        failing.step(ACTION)
    marked = make_env(
        critic,
        ShadedEnv(ScriptedEnv(max_episode_steps=STEPS, image_size=16, task=fault)),
        on_critic_error="truncate",
    )
    ((reward, terminated, truncated, report),) = play(marked)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert (report["failed"], report["stopped_by"], report["values"]) == (True, "critic_error", [])
    assert play(make_env(critic)) == undisturbed


def test_frames_evicted_between_checks_and_value_are_resent(start_server, connect, undisturbed):
    frame_bytes = 16 * 16 * 3
    server = start_server("--frame-store-bytes", str(7 * frame_bytes))
    critic = connect(server.url)
    assert play(make_env(critic)) == undisturbed
    assert STEPS < critic.statistics["frames_sent"] < 2 * STEPS


def test_two_trainers_at_once_get_their_own_answers(start_server, connect, fakes):
    server = start_server("--delay-s", "0.01")
    steps = (5, 9, 12, 17)

    def env_of(critic: Critic, count: int) -> VLACRewardWrapper:
        return make_env(critic, ShadedEnv(ScriptedEnv(max_episode_steps=count, image_size=8 + count)))

    expected = [play(env_of(fakes.BrightnessCritic(), count)) for count in steps]
    critics = [connect(server.url) for _ in steps]
    with ThreadPoolExecutor(len(steps)) as pool:
        histories = list(pool.map(lambda pair: play(env_of(*pair)), zip(critics, steps, strict=True)))
    assert histories == expected


def test_a_shutdown_under_load_finishes_what_it_began_and_invents_nothing(
    start_server, connect, random_frames, fakes
):
    server = start_server("--delay-s", "0.05", "--max-batch", "4")
    frames = random_frames(400)
    answers: dict[int, float] = {}
    errors: list[CriticError] = []
    critics = [connect(server.url, max_attempts=1, timeout_s=5) for _ in range(8)]
    started = threading.Event()

    def hammer(worker: int) -> None:
        for i in range(worker, len(frames), 8):
            try:
                answers[i] = float(critics[worker].success_prob([frames[i]], ["t"])[0])
            except CriticError as e:
                errors.append(e)
                return
            started.set()

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(hammer, worker) for worker in range(8)]
        started.wait(20)
        stopped_at = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - stopped_at < 5
        for job in jobs:
            job.result(20)
    assert answers
    assert answers == {i: np.float32(fakes.brightness(frames[i])) for i in answers}
    assert len(errors) == 8
    assert {type(e).__name__ for e in errors} <= {"CriticOverloadedError", "CriticConnectionError"}
    assert "Traceback" not in server.log


def test_an_episode_moves_to_the_other_server_when_one_shuts_down(start_server, connect, undisturbed):
    one, two = start_server(), start_server()
    critic = connect(f"{one.url},{two.url}")
    assert play(make_env(critic), at(6, lambda: one.signal(signal.SIGTERM))) == undisturbed
    assert one.wait() == 0
    assert two.process.poll() is None


def test_a_hanging_model_does_not_outlive_the_deadline_of_a_shutdown(start_server, connect, random_frames):
    server = start_server("--delay-s", "30", "--shutdown-s", "0.5")
    critic = connect(server.url, max_attempts=1, timeout_s=60)
    with ThreadPoolExecutor(1) as pool:
        question = pool.submit(critic.success_prob, random_frames(1), ["t"])
        time.sleep(0.5)
        stopped_at = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait(30) == 1
        assert time.monotonic() - stopped_at < 15
        with pytest.raises(CriticError):
            question.result()
