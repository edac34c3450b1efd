"""`--tensorboard` and `--wandb` of `rollout`, `eval`, `report-card` and `train-critic`."""

import dataclasses
import importlib.util
import json
import os
import struct
import subprocess
import sys

from reaching import SETTINGS
from tensorboardX.proto.event_pb2 import Event
from wandb_file import read_run

from vlac_gym.cli import main, rollout
from vlac_gym.evaluation.folder import EpisodeRecord, EvalFolder
from vlac_gym.evaluation.run import planned_episodes


def scalars(folder) -> list[tuple[int, str, float]]:
    """What a folder's event file holds; a record is length, checksum, bytes, checksum."""
    (path,) = folder.iterdir()
    data, found = path.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + size])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + size :]
    return found


def run(out, *more: str) -> int:
    base = ["rollout", "--out", str(out), "--policy", "zero", "--max-episode-steps", "6"]
    return main([*base, "--no-video", "--no-frames", *more])


def test_eval_writes_its_rates_as_one_step(tmp_path):
    settings = dataclasses.replace(SETTINGS, policy="zero", task_ids=(0, 3), episodes_per_task=2)
    path = tmp_path / "run"
    path.mkdir()
    folder = EvalFolder(path, vars(settings))
    for start, success in zip(planned_episodes(settings), (True, False, True, True)):
        folder.add(EpisodeRecord(**vars(start), task="stack", success=success, steps=5))
    assert main(["eval", "--resume", str(path), "--tensorboard"]) == 0
    (line,) = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert line["step"] == 0
    assert line["metrics"] == {
        "eval/episodes": 4.0,
        "eval/successes": 3.0,
        "eval/lost": 0.0,
        "eval/mean_steps": 5.0,
        "eval/success_rate": 0.75,
        "eval/success_rate_task_0": 0.5,
        "eval/success_rate_task_3": 1.0,
    }
    assert (0, "eval/success_rate", 0.75) in scalars(path / "tensorboard")


def test_rollout_writes_the_metrics_so_far_after_each_episode(scripted_libero, tmp_path, monkeypatch):
    monkeypatch.setattr(rollout, "limit_torch_threads", lambda count, **facts: None)
    assert run(tmp_path / "run", "--episodes", "2", "--tensorboard") == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[1]["metrics"] == json.loads((tmp_path / "run/summary.json").read_text())["metrics"]
    found = scalars(tmp_path / "run/tensorboard")
    assert [s for s in found if s[1] == "env/episode_length"] == [
        (1, "env/episode_length", 4.0),
        (2, "env/episode_length", 4.0),
    ]
    # A continued run continues its numbers.
    assert run(tmp_path / "run", "--episodes", "3", "--tensorboard", "--resume") == 0
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 3


def test_without_a_dashboard_no_metrics_file_is_written(scripted_libero, tmp_path, monkeypatch):
    monkeypatch.setattr(rollout, "limit_torch_threads", lambda count, **facts: None)
    assert run(tmp_path / "run") == 0
    assert not (tmp_path / "run/metrics.jsonl").exists()


def test_wandb_stays_in_the_run_folder_offline(scripted_libero, tmp_path, monkeypatch, wandb):
    monkeypatch.setattr(rollout, "limit_torch_threads", lambda count, **facts: None)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert run(tmp_path / "run", "--episodes", "2", "--wandb", "vlac-gym-tests") == 0
    found = read_run(tmp_path / "run/wandb")
    assert (found["project"], found["name"], found["exit"]) == ("vlac-gym-tests", "run", 0)
    assert found["config"]["episodes"] == 2
    assert found["config"]["out"] == str(tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    known = [{k: v for k, v in line["metrics"].items() if v is not None} for line in lines]
    assert found["rows"] == [{"_step": 1, **known[0]}, {"_step": 2, **known[1]}]
    assert known[1]["env/episode_length"] == 4.0


def test_nobody_logged_in_at_wandb_is_told_before_anything_is_created(tmp_path, wandb):
    """In a process of its own: W&B reads the environment once."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "vlac_gym.cli",
            "rollout",
            "--out",
            str(tmp_path / "run"),
            "--wandb",
            "project",
        ],
        env=environment | {"HOME": str(tmp_path), "WANDB_BASE_URL": "http://127.0.0.1:9"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "Expected to be logged in at W&B for --wandb: No API key configured." in done.stderr
    assert "set WANDB_MODE=offline" in done.stderr
    assert not (tmp_path / "run").exists()


def test_missing_dashboard_is_told_before_anything_is_created(scripted_libero, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "wandb" else find(name))
    assert run(tmp_path / "run", "--wandb", "project") == 2
    assert "--wandb needs wandb. Run: pip install wandb" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
