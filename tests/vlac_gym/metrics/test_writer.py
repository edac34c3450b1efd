"""Metrics on disk, in TensorBoard's event files and in a run of W&B."""

import json
import math
import struct
import sys

import numpy as np
import pytest
from wandb_file import read_run

from vlac_gym.errors import ConfigError, DependencyNotInstalled
from vlac_gym.metrics.episodes import METRIC_NAMES, EpisodeMetrics
from vlac_gym.metrics.writer import MetricsWriter, TensorBoardSink, WandbSink


class Recorder:
    """Takes the calls of a SummaryWriter and of a W&B run."""

    def __init__(self):
        self.scalars, self.logs, self.ends = [], [], []

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def log(self, values, step):
        self.logs.append((values, step))

    def close(self):
        self.ends.append("close")

    def finish(self):
        self.ends.append("finish")


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_line_holds_every_metric_under_its_documented_name(tmp_path):
    metrics = EpisodeMetrics()
    metrics.add(num_steps=10, episode_return=0.5, sim_success=False, critic_said_done=True, success_prob=0.9)
    with MetricsWriter(tmp_path / "new" / "run") as writer:
        writer.write(3, metrics.compute())
    (line,) = lines(tmp_path / "new" / "run")
    assert line["step"] == 3
    assert list(line["metrics"]) == list(METRIC_NAMES)
    assert line["metrics"]["critic/false_positive_rate"] == 1.0
    assert line["metrics"]["critic/false_negative_rate"] is None


def test_a_run_that_goes_on_appends_and_each_line_is_on_disk_at_once(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write(1, {"train/loss": np.float32(0.5)})
    assert lines(tmp_path)[0]["metrics"] == {"train/loss": 0.5}
    writer.close()
    writer.close()
    with MetricsWriter(tmp_path) as again:
        again.write(2, {"train/loss": 0.25})
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    with pytest.raises(ConfigError, match="writer is closed"):
        writer.write(3, {})


def test_sinks_get_known_numbers_only_and_are_closed_once(tmp_path):
    board, run = Recorder(), Recorder()
    sinks = [TensorBoardSink(board), WandbSink(run)]
    with MetricsWriter(tmp_path, sinks) as writer:
        writer.write(7, {"env/success_rate": 0.5, "critic/latency_ms": None, "train/loss": math.inf})
    writer.close()
    assert board.scalars == [("env/success_rate", 0.5, 7), ("train/loss", math.inf, 7)]
    assert run.logs == [({"env/success_rate": 0.5, "train/loss": math.inf}, 7)]
    assert (board.ends, run.ends) == (["close"], [])  # the run belongs to somebody else
    assert lines(tmp_path)[0]["metrics"] == {
        "env/success_rate": 0.5,
        "critic/latency_ms": None,
        "train/loss": None,
    }


@pytest.mark.parametrize(
    ("step", "metrics", "text"),
    [
        (-1, {}, "step as an int >= 0, got -1"),
        (1.5, {}, "step as an int >= 0, got 1.5"),
        (1, {"loss": 1.0}, "'group/name', got 'loss'"),
        (1, {"env/": 1.0}, "'group/name', got 'env/'"),
        (1, {"env/x": 1.0, "env/y": "high"}, "number or None for 'env/y', got 'high'"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path, step, metrics, text):
    board = Recorder()
    with MetricsWriter(tmp_path, [TensorBoardSink(board)]) as writer, pytest.raises(ConfigError, match=text):
        writer.write(step, metrics)
    assert lines(tmp_path) == []
    assert board.scalars == []


def test_a_new_wandb_run_gets_its_options_and_is_ended(tmp_path, wandb):
    options = {"mode": "offline", "dir": str(tmp_path), "config": {"seed": 3, "path": ("a", None)}}
    with MetricsWriter(tmp_path, [WandbSink(project="vlac", **options)]) as writer:
        writer.write(0, {"env/success_rate": 1.0, "env/none": None})
        writer.write(5, {"env/success_rate": 0.5, "env/nan": math.inf})
    found = read_run(tmp_path / "wandb")
    assert found["project"] == "vlac"
    assert found["config"] == {"seed": 3, "path": ["a", None]}
    assert found["rows"] == [
        {"_step": 0, "env/success_rate": 1.0},
        {"_step": 5, "env/success_rate": 0.5, "env/nan": math.inf},
    ]
    assert found["exit"] == 0


def test_what_wandb_refuses_is_told(tmp_path, wandb):
    with pytest.raises(ConfigError, match=r"W&B did not start a run: .*set WANDB_MODE=offline"):
        WandbSink(project="a/b", mode="offline", dir=str(tmp_path))


def test_a_run_that_exists_takes_no_options():
    run = Recorder()
    with pytest.raises(ConfigError, match=r"run that exists, got \['project'\]"):
        WandbSink(run, project="vlac")


def test_missing_packages_name_the_command(monkeypatch, tmp_path):
    for name in ("wandb", "tensorboardX"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyNotInstalled, match="pip install wandb"):
        WandbSink(project="vlac")
    with pytest.raises(
        DependencyNotInstalled, match="pip install tensorboardX, or pass torch's SummaryWriter"
    ):
        TensorBoardSink(tmp_path)


def test_a_package_that_can_not_be_imported_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "tensorboardX.py").write_text("raise ImportError('its protobuf is too old')")
    monkeypatch.delitem(sys.modules, "tensorboardX", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        DependencyNotInstalled, match=r"can't import .*\(its protobuf is too old\).* pip install"
    ):
        TensorBoardSink(tmp_path)


def test_tensorboard_finds_the_scalars_in_the_event_file(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with MetricsWriter(tmp_path, [TensorBoardSink(tmp_path / "board")]) as writer:
        writer.write(10, {"env/success_rate": 0.25, "rollout/reward_mean": None})
        writer.write(20, {"env/success_rate": 0.75})
    (file,) = (tmp_path / "board").iterdir()
    data, found = file.read_bytes(), []
    while data:  # a record: length (8 bytes), its checksum (4), the event, its checksum (4)
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    assert found == [(10, "env/success_rate", 0.25), (20, "env/success_rate", 0.75)]


def test_lines_after_the_last_step_and_half_lines_are_dropped(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"a/b": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1')
    with MetricsWriter(tmp_path, last_step=2) as writer:
        writer.write(3, {"a/b": 30})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["metrics"]["a/b"]) for row in rows] == [(1, 1.0), (2, 2.0), (3, 30.0)]
