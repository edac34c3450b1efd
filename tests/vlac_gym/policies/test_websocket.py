"""A real policy server in openpi's protocol, in a process of its own."""

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError, PolicyError
from vlac_gym.policies import ChunkPolicy, make_policy

SERVER = Path(__file__).parents[2] / "support" / "policy_server.py"


@pytest.fixture(scope="module")
def start_server() -> Iterator[Callable[[str], int]]:
    running: dict[str, tuple[subprocess.Popen[str], int]] = {}

    def start(kind: str) -> int:
        if kind not in running:
            process = subprocess.Popen([sys.executable, str(SERVER), kind], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            running[kind] = process, int(process.stdout.readline())
        return running[kind][1]

    yield start
    for process, _ in running.values():
        process.kill()
        process.communicate()


def observation(red: int, x: float) -> dict[str, np.ndarray]:
    frame = np.full((224, 224, 3), red, np.uint8)
    return {
        "agentview_image": frame,
        "wrist_image": frame,
        "state": np.array([x, *[0] * 7], np.float32),
    }


def test_chunks_come_back_for_each_env_in_order(start_server):
    policy = make_policy(f"ws://127.0.0.1:{start_server('good')}")
    assert isinstance(policy, ChunkPolicy)
    policy.reset(ScriptedEnv())
    chunks = policy.plan(
        [observation(51, 0.25), observation(102, 0.5)], [{"task": "open it"}, {"task": "close it"}]
    )
    assert [c.shape for c in chunks] == [(5, 7), (5, 7)]
    assert chunks[0][1].tolist() == pytest.approx([0.0, 0.01, 0.2, 0.25, 0.0, 0.0, -1.0])
    assert chunks[1][4].tolist() == pytest.approx([0.01, 0.04, 0.4, 0.5, 0.0, 0.0, 1.0])
    policy.close()


def test_no_proxy_comes_between(start_server, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    policy = make_policy(f"ws://127.0.0.1:{start_server('good')}")
    policy.reset(ScriptedEnv())
    (chunk,) = policy.plan([observation(51, 0.25)], [{"task": "open it"}])
    assert chunk.shape == (5, 7)
    policy.close()


def test_one_action_at_a_time_asks_again_when_the_chunk_is_over(start_server):
    policy = make_policy(f"ws://127.0.0.1:{start_server('good')}?chunk_steps=2")
    policy = pickle.loads(pickle.dumps(policy))
    policy.reset(ScriptedEnv())
    seen = [policy.act(observation(0, 0.0), {"task": "open"})[:2] for _ in range(5)]
    # Question of the chunk, row in it, in hundredths.
    assert np.round(np.array(seen) * 100).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0]]
    policy.reset(ScriptedEnv())
    assert np.round(policy.act(observation(0, 0.0), {"task": "open"})[:2] * 100).tolist() == [3, 0]
    policy.close()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("short", "", r"chunks of shape \(5 or more, 7\) by preset openpi, got \(3, 7\)"),
        ("metres", "", r"motion 4 in \[-2, 2\] by preset openpi, got 50"),
        ("text", "", "policy server at ws://127.0.0.1:.* failed: Traceback: KeyError"),
        ("bare", "", r"reply with 'actions' from the policy server .*, got \['poses'\]"),
        ("garbage", "", "Expected msgpack from the policy server"),
        ("slow", "?timeout_s=0.3", "No reply from the policy server at ws://.* in 0.3 s"),
    ],
)
def test_what_a_server_can_do_wrong_is_told(start_server, kind, options, message):
    policy = make_policy(f"ws://127.0.0.1:{start_server(kind)}{options}")
    with pytest.raises(PolicyError, match=message):
        policy.act(observation(0, 0.0), {"task": "open"})
    policy.close()


def test_no_server_is_told_at_the_first_question():
    policy = make_policy("ws://127.0.0.1:9?timeout_s=2")
    with pytest.raises(PolicyError, match=r"No connection to a policy server at ws://127.0.0.1:9"):
        policy.act(observation(0, 0.0), {"task": "open"})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ws://host:8000?preset=pi", "Unknown policy preset 'pi'"),
        ("ws://host:8000?timeout_s=0", "timeout_s above 0"),
        ("ws://host:8000?chunk=3", "Unknown ws://HOST:PORT option 'chunk'"),
        ("ws:host", "policy server as ws://HOST:PORT, got ws:host"),
        ("ws", "got nothing after the colon"),
    ],
)
def test_wrong_specs_are_refused_before_a_connection(spec, message):
    with pytest.raises(ConfigError, match=message):
        make_policy(spec)
