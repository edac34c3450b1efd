"""`--tensorboard` and `--wandb` of `rollout`, `report-card` and `train-critic`."""

import importlib.util
import json
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from vlac_gym.cli import main, rollout


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


def test_wandb_stays_in_the_run_folder_offline(scripted_libero, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setattr(rollout, "limit_torch_threads", lambda count, **facts: None)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert run(tmp_path / "run", "--wandb", "vlac-gym-tests") == 0
    assert list((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))


def test_missing_dashboard_is_told_before_anything_is_created(scripted_libero, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "wandb" else find(name))
    assert run(tmp_path / "run", "--wandb", "project") == 2
    assert "--wandb needs wandb. Run: pip install wandb" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
