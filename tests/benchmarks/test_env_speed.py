"""What env_speed.py makes of its parts' numbers, with parts that measure nothing."""

import argparse
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from benchmark_scripts import BENCHMARKS, load_benchmark


def both(seconds: float) -> dict[str, float]:
    return {"clock_s": seconds, "cpu_s": seconds}


PARTS = {
    "one_env": {
        "first env, to its first observation": both(2.0),
        "reset to a new state": both(0.5),
        "step, nothing rendered": both(0.02),
        "step, nothing rendered, repeat_solves=False": both(0.01),
        "one picture": both(0.004),
    },
    "libero": {"first env, to its first observation": both(3.0), "reset": both(1.0), "step": both(0.04)},
    "workers": {
        "start and first reset of all": both(4.0),
        "step of one env": both(0.005),
        "memory of a worker, MiB": 1000.0,
    },
    "libero_workers": {
        "start and first reset of all": both(6.0),
        "step of one env": both(0.02),
        "memory of a worker, MiB": 1200.0,
    },
}


@pytest.fixture
def env_speed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = load_benchmark("env_speed")
    monkeypatch.setattr(module, "run_part", lambda name, args, count=0: PARTS[name])
    return module


def run(env_speed: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["env_speed.py", *map(str, arguments)])
    env_speed.main()


def test_each_measurement_stands_beside_liberos_or_alone(
    env_speed: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(env_speed, monkeypatch, "--workers", 16)
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert rows[2:] == [
        "first env, to its first observation 2000.00 (2000.00) 3000.00 (3000.00) 1.5 (1.5)",
        "reset to a new state 500.00 (500.00) 1000.00 (1000.00) 2.0 (2.0)",
        "step, nothing rendered 20.00 (20.00) 40.00 (40.00) 2.0 (2.0)",
        "step, nothing rendered, repeat_solves=False 10.00 (10.00) 40.00 (40.00) 4.0 (4.0)",
        "one picture 4.00 (4.00)",
        "16 workers: start and first reset of all 4000.00 (4000.00) 6000.00 (6000.00) 1.5 (1.5)",
        "16 workers: step of one env 5.00 (5.00) 20.00 (20.00) 4.0 (4.0)",
        "16 workers: steps/s in all 200.0 50.0 4.0",
        "16 workers: memory of a worker, MiB 1000 1200",
    ]


def test_a_part_that_fails_loses_nothing_measured_before_it(
    env_speed: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run_part(name: str, args: Any, count: int = 0) -> dict[str, Any]:
        if name == "libero_workers":
            sys.exit("libero_workers failed")
        return PARTS[name]

    monkeypatch.setattr(env_speed, "run_part", run_part)
    out = tmp_path / "speed.json"
    with pytest.raises(SystemExit, match="libero_workers failed"):
        run(env_speed, monkeypatch, "--workers", 16, "--out", out)
    results = json.loads(out.read_text())["results"]
    assert results == {name: PARTS[part] for name, part in
                       [("one_env", "one_env"), ("libero", "libero"), ("workers_16", "workers")]}  # fmt: skip


def test_the_file_is_written_before_anything_is_shown(
    env_speed: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "speed.json"
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(env_speed, "show", lambda results, args: seen.append(json.loads(out.read_text())))
    run(env_speed, monkeypatch, "--workers", "--out", out)
    assert list(seen[0]["results"]) == ["one_env", "libero"]


@pytest.fixture
def part_args() -> argparse.Namespace:
    return argparse.Namespace(
        suite="libero_goal", steps=20, chunk=8, image_size=64, num_workers=2, lerobot_python="no/such/python"
    )


def test_a_part_of_another_environment_is_run_by_its_interpreter(
    monkeypatch: pytest.MonkeyPatch, part_args: argparse.Namespace, tmp_path: Path
) -> None:
    """A stand-in that answers with what it was asked, after a line of noise."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport json, sys\nprint('noise')\nprint(json.dumps({{'asked': sys.argv[1:]}}))\n"
    )
    python.chmod(0o755)
    part_args.rlinf_python = str(python)
    env_speed = load_benchmark("env_speed")
    assert env_speed.run_part("rlinf_workers", part_args, 2)["asked"] == [
        str(BENCHMARKS / "env_speed.py"), "--part", "rlinf_workers", "--suite", "libero_goal", "--steps", "20",
        "--image-size", "64", "--num-workers", "2", "--chunk", "8",
    ]  # fmt: skip
    with pytest.raises(SystemExit, match=r"lerobot failed: .*no/such/python"):
        env_speed.run_part("lerobot", part_args)


class RLinfStandIn:
    """Stands in for RLinf's `LiberoEnv`, and has no package but numpy."""

    def __init__(
        self, cfg: dict[str, Any], num_envs: int, seed_offset: int, processes: int, info: None
    ) -> None:
        self.config, self.chunks, self.num_resets, self.is_closed = cfg, list[tuple[int, ...]](), 0, False
        assert (num_envs, seed_offset, processes) == (2, 0, 1)
        worker = SimpleNamespace(process=SimpleNamespace(pid=os.getpid()))
        self.env = SimpleNamespace(
            workers=[worker] * num_envs, close=lambda: setattr(self, "is_closed", True)
        )

    def reset(self) -> None:
        self.num_resets += 1

    def chunk_step(self, actions: Any) -> None:
        self.chunks.append(actions.shape)


def test_rlinfs_envs_play_chunks_after_one_reset(
    monkeypatch: pytest.MonkeyPatch, part_args: argparse.Namespace
) -> None:
    """20 steps are chunks of 8, 8 and 4, after one to warm up; nothing of vlac_gym is needed."""
    made: list[RLinfStandIn] = []

    def make(*args: Any) -> RLinfStandIn:
        made.append(RLinfStandIn(*args))
        return made[0]

    monkeypatch.setitem(sys.modules, "vlac_gym", None)
    monkeypatch.setitem(sys.modules, "omegaconf", SimpleNamespace(OmegaConf=SimpleNamespace(create=dict)))
    monkeypatch.setitem(sys.modules, "rlinf.envs.libero.libero_env", SimpleNamespace(LiberoEnv=make))
    for package in ("rlinf", "rlinf.envs", "rlinf.envs.libero"):
        monkeypatch.setitem(sys.modules, package, SimpleNamespace())
    results = load_benchmark("env_parts").rlinf_workers(part_args)
    assert made[0].chunks == [(2, 8, 7), (2, 8, 7), (2, 8, 7), (2, 4, 7)]
    assert (made[0].num_resets, made[0].is_closed) == (1, True)
    config = made[0].config
    assert (config["task_suite_name"], config["task_id_filter"], config["auto_reset"]) == (
        "libero_goal",
        [0],
        False,
    )
    assert config["init_params"] == {"camera_heights": 64, "camera_widths": 64}
    assert set(results) == {"start and first reset of all", "step of one env", "memory of a worker, MiB"}


class AsyncVectorEnvStandIn:
    """Stands in for Gymnasium's `AsyncVectorEnv`."""

    def __init__(self, num_envs: int, context: str) -> None:
        self.processes = [SimpleNamespace(pid=os.getpid())] * num_envs
        self.context, self.log = context, list[Any]()

    def reset(self, seed: int) -> None:
        self.log.append("reset")

    def step(self, actions: Any) -> None:
        self.log.append((actions.shape, str(actions.dtype)))

    def close(self) -> None:
        self.log.append("close")


def test_lerobots_envs_play_in_spawned_processes_after_one_reset(
    monkeypatch: pytest.MonkeyPatch, part_args: argparse.Namespace
) -> None:
    """20 steps, after one to warm up; nothing of vlac_gym is needed."""
    asked: list[Any] = []
    made: list[AsyncVectorEnvStandIn] = []

    def create(task: str, n_envs: int, kwargs: dict[str, Any], *, init_states: bool, env_cls: Any) -> Any:
        asked.append((task, kwargs))
        made.append(env_cls(n_envs))
        return {task: {0: made[0]}}

    monkeypatch.setitem(sys.modules, "vlac_gym", None)
    monkeypatch.setitem(
        sys.modules, "gymnasium.vector", SimpleNamespace(AsyncVectorEnv=AsyncVectorEnvStandIn)
    )
    monkeypatch.setitem(sys.modules, "lerobot.envs.libero", SimpleNamespace(create_libero_envs=create))
    for package in ("lerobot", "lerobot.envs"):
        monkeypatch.setitem(sys.modules, package, SimpleNamespace())
    results = load_benchmark("env_parts").lerobot_workers(part_args)
    size = {"observation_width": 64, "observation_height": 64}
    assert asked == [("libero_goal", {"task_ids": [0], "obs_type": "pixels_agent_pos"} | size)]
    assert made[0].context == "spawn"
    assert made[0].log == ["reset", *[((2, 7), "float32")] * 21, "close"]
    assert set(results) == {"start and first reset of all", "step of one env", "memory of a worker, MiB"}
