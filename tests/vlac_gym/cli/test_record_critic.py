"""`vlac-gym rollout --record-critic`: what the record gives again, and what a killed process leaves of it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import scripted_libero as program

from vlac_gym.cli import main, rollout
from vlac_gym.critic.recorded import ReplayedCritic

CRITIC = ("--critic", "random:done_rate=0.12,seed=1")
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _torch_keeps_its_threads(monkeypatch):
    monkeypatch.setattr(rollout, "limit_torch_threads", lambda count, **facts: None)


def arguments(out, *more):
    fixed = [
        "--policy",
        "zero",
        "--max-episode-steps",
        "6",
        "--no-video",
        "--no-frames",
        "--value-stride",
        "2",
    ]
    return ["rollout", "--out", str(out), *fixed, *map(str, more)]


def episodes(out):
    told = ("steps", "return", "terminated", "truncated", "critic_done_step")
    return [
        {name: e[name] for name in told} for e in json.loads((out / "summary.json").read_text())["episodes"]
    ]


def lines(record):
    return record.read_text().splitlines() if record.exists() else []


def test_the_record_replays_the_run_without_the_critic(scripted_libero, tmp_path):
    record = tmp_path / "critic.jsonl"
    played = arguments(tmp_path / "played", "--episodes", 4, *CRITIC, "--record-critic", record)
    assert main(played) == 0
    first = json.loads(lines(record)[0])
    assert first["critic"]["name"] == "random"
    asked = [json.loads(line)["kind"] for line in lines(record)[1:]]
    told = episodes(tmp_path / "played")
    # A question after every step, and a value list per episode: for the reward, or for the plot of a stopped one.
    assert asked.count("success_prob") == sum(episode["steps"] for episode in told)
    assert asked.count("value") == 4
    assert {episode["terminated"] for episode in told} == {True, False}

    assert main(arguments(tmp_path / "again", "--episodes", 4, "--critic", f"recorded:{record}")) == 0
    assert episodes(tmp_path / "again") == told


def test_a_resumed_run_goes_on_with_its_record(scripted_libero, tmp_path):
    record = tmp_path / "critic.jsonl"
    for more in (("--episodes", 1), ("--episodes", 2, "--resume")):
        assert main(arguments(tmp_path / "run", *CRITIC, "--record-critic", record, *more)) == 0
    assert sum(json.loads(line).get("kind") == "value" for line in lines(record)) == 2
    assert sum("format" in json.loads(line) for line in lines(record)) == 1


def test_a_record_without_a_folder_or_of_another_critic_is_refused(scripted_libero, tmp_path, capsys):
    out, record = tmp_path / "run", tmp_path / "critic.jsonl"
    assert main(arguments(out, *CRITIC, "--record-critic", tmp_path / "none" / "critic.jsonl")) == 2
    assert "Expected --record-critic in an existing folder" in capsys.readouterr().err
    assert not out.exists()
    assert main(arguments(out, *CRITIC, "--record-critic", record)) == 0
    before = record.read_bytes()
    assert main(arguments(tmp_path / "other", "--critic", "random:seed=2", "--record-critic", record)) == 2
    assert "Record to another file" in capsys.readouterr().err
    assert record.read_bytes() == before


def test_a_killed_process_leaves_a_record_of_all_that_it_was_answered(scripted_libero, tmp_path):
    out, record = tmp_path / "run", tmp_path / "critic.jsonl"
    recorded = (*CRITIC, "--record-critic", record)
    child = subprocess.Popen(
        [sys.executable, program.__file__, *arguments(out, "--episodes", 500, *recorded)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(program.__file__).parent)])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not ((out / "summary.json").exists() and len(episodes(out)) >= 3):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL

    finished = episodes(out)
    assert 3 <= len(finished) < 500
    assert ReplayedCritic(record).describe().name == "random"
    again = arguments(tmp_path / "again", "--episodes", len(finished), "--critic", f"recorded:{record}")
    assert main(again) == 0
    assert episodes(tmp_path / "again") == finished

    before = record.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    assert main(arguments(out, "--episodes", len(finished) + 1, "--resume", *recorded)) == 0
    assert record.read_bytes().startswith(whole)
    assert len(record.read_bytes()) > len(whole)
    assert episodes(out)[:-1] == finished
