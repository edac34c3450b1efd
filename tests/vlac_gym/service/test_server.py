"""`vlac-gym serve` as a program: where it binds, what it refuses, how it ends, what it logs."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest

from vlac_gym.cli import main
from vlac_gym.critic import make_critic
from vlac_gym.critic.vlac.tiny_checkpoint import make_tiny_checkpoint
from vlac_gym.errors import ConfigError
from vlac_gym.service.client import RemoteCritic
from vlac_gym.service.core import ServiceConfig
from vlac_gym.service.server import ServerConfig, is_loopback
from vlac_gym.service.token_file import read_token

PROGRAM = "import sys; from vlac_gym.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Starts `vlac-gym serve` with options, and gives the process and its URL once the critic is loaded."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", PROGRAM, "serve", "--port", "0", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        first = process.stdout.readline()
        assert first.startswith("Listening at http://"), process.stderr.read()
        assert process.stdout.readline() == "Ready.\n"
        return process, first.removeprefix("Listening at ").partition(";")[0]

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_told_to_stop_and_logs_json(serve, number):
    process, url = serve("--critic", "scripted:0.25,0.5")
    assert url.startswith("http://127.0.0.1:")
    with httpx.Client(trust_env=False) as client:
        assert client.get(f"{url}/readyz").json() == {"status": "ready"}
        assert client.get(f"{url}/v1/info").json()["info"]["name"] == "scripted"
        assert client.get(f"{url}/nowhere", headers={"x-request-id": "abc"}).status_code == 404
    process.send_signal(number)
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    request = next(line for line in lines if line["message"] == "request")
    assert (request["request_id"], request["status"], request["path"]) == ("abc", 404, "other")
    assert {"time", "level", "logger"} <= request.keys()


def test_the_token_file_closes_it_to_others(serve, tmp_path):
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    _, url = serve("--critic", "scripted:0.5", "--token-file", str(file), "--host", "0.0.0.0")
    url = url.replace("0.0.0.0", "127.0.0.1")
    with httpx.Client(trust_env=False) as client:
        assert client.get(f"{url}/v1/info").status_code == 401
        answer = client.get(f"{url}/v1/info", headers={"authorization": "Bearer 0123456789abcdef"})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--critic", "scripted:0.5", "--host", "0.0.0.0"], "Refused to serve on '0.0.0.0' without a token"),
        (
            ["--critic", "scripted:0.5", "--token-file", "/nowhere/token"],
            "Can't read a token from '/nowhere/token'",
        ),
        (["--critic", "scripted:0.5", "--max-batch", "0"], "Expected max_batch above 0, got 0"),
        (["--critic", "scripted:0.5", "--port", "70000"], r"port in [0, 65535], got 70000"),
        (["--critic", "scripted:0.5", "--log-level", "loud"], "Unknown log level 'loud'"),
        (["--critic", "scripted:0.5", "--gpu-memory-fraction", "1.5"], "above 0 and at most 1, got 1.5"),
        (["--critic", "oracle", "--port", "0"], "Critic 'oracle' reads the simulator's state"),
        (["--critic", "sripted:0.5", "--port", "0"], "Did you mean 'scripted'?"),
    ],
)
def test_what_it_can_not_serve_is_wrong_usage(options, text):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, "serve", *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert text in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_taken_port_is_wrong_usage(serve, capsys):
    _, url = serve("--critic", "scripted:0.5")
    assert main(["serve", "--critic", "scripted:0.5", "--port", url.rpartition(":")[2]]) == 2
    assert "Choose another --host or --port" in capsys.readouterr().err


def test_a_vlac_checkpoint_answers_exactly_as_in_process(serve, connect, tmp_path, random_frames):
    spec = f"transformers:{make_tiny_checkpoint(tmp_path / 'tiny')}?out_of_scale=clip"
    _, url = serve("--critic", spec)
    remote, local = connect(url), make_critic(spec)
    frames = random_frames(7, 40, 30)
    tasks = ["pick up the bowl", "open the drawer ü"] * 3
    assert np.array_equal(remote.success_prob(frames[:6], tasks), local.success_prob(frames[:6], tasks))
    for references in (None, random_frames(2, 20, 20, seed=1)):
        pairs = frames[:6], frames[1:], tasks, references
        assert np.array_equal(remote.progress(*pairs), local.progress(*pairs))
        for count in (0, 1, 7):
            remote_values = remote.value(frames[:count], tasks[0], references)
            assert np.array_equal(remote_values, local.value(frames[:count], tasks[0], references))
    assert remote.server_info()["info"]["prompt_version"] == local.describe().prompt_version
    remote.sleep()
    assert remote.server_info()["state"] == "asleep"
    remote.wake()
    assert np.array_equal(remote.success_prob(frames[:6], tasks), local.success_prob(frames[:6], tasks))
    local.close()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_clients_that_come_and_go_leave_nothing_in_the_server(serve, random_frames):
    process, url = serve("--critic", "scripted:0.5")
    (frame,) = random_frames(1, 64, 64)

    def visit(count: int) -> tuple[int, int]:
        for _ in range(count):
            with RemoteCritic(url) as critic:
                critic.success_prob([frame], ["t"])
            with httpx.Client(trust_env=False) as client:
                assert client.post(f"{url}/v1/value", content=b"junk").status_code == 415
        threads = len(os.listdir(f"/proc/{process.pid}/task"))
        with open(f"/proc/{process.pid}/statm") as statm:
            pages = int(statm.read().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), threads

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{process.pid}/fd"))

    rss, threads = visit(10)
    open_files = descriptors()
    later_rss, later_threads = visit(30)
    assert later_rss - rss < 4 * 2**20
    assert later_threads <= threads + 1
    assert descriptors() <= open_files + 2


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_only_loopback_needs_no_token(host, expected):
    assert is_loopback(host) == expected
    if expected:
        ServerConfig(host=host)
    else:
        with pytest.raises(ConfigError, match="without a token"):
            ServerConfig(host=host)
        ServerConfig(host=host, service=ServiceConfig(token="0123456789"))


@pytest.mark.parametrize("text", ["", " \n", "two words", "bell\x07", "ü"])
def test_a_token_is_one_printable_word(tmp_path, text):
    file = tmp_path / "token"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        read_token(file)


def test_short_tokens_are_refused():
    with pytest.raises(ConfigError, match="at least 8 characters"):
        ServiceConfig(token="short")


def test_the_example_script_can_be_run():
    script = os.path.join(os.path.dirname(__file__), "..", "..", "..", "examples", "04_serve_and_rollout.sh")
    assert os.stat(script).st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", script], check=True)
