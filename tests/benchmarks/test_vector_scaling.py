"""vector_scaling.py as it is run, with one core and two small envs; its ways of playing with scripted envs."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
from benchmark_scripts import BENCHMARKS, load_benchmark

from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.vector import RolloutVectorEnv

TINY = (
    "--cores 1 --envs 2 --cameras 1 --chunks 8 --ways async --critics scripted --image-size 32 --limits 8 16 "
    "--seconds 2 --markdown"
)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load_benchmark("scaling_ways")


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load_benchmark("vector_scaling")


def test_rows_stand_between_two_baselines_and_end_in_a_table(tmp_path: Path) -> None:
    out = tmp_path / "lines.jsonl"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "vector_scaling.py"), *TINY.split(), "--json", str(out)],
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, after, row = (json.loads(line) for line in out.read_text().splitlines())
    assert [line["way"] for line in (before, after, row)] == ["independent", "independent", "async"]
    rates = [before["steps_per_s"], after["steps_per_s"]]
    assert row["base_rates"] == rates
    assert row["ratio"] == pytest.approx(2 * row["steps_per_s"] / sum(rates))
    assert row["steps_per_s"] > 0
    assert row["niceness"] == 0
    assert (
        f"(before {rates[0]:.0f}, after {rates[1]:.0f}):\n  async, scripted: {row['ratio']:.2f},"
        in done.stdout
    )
    first, second = done.stdout.split("\n\n")[-2:]
    assert first.splitlines()[-1].endswith(f" | {row['steps_per_s']:,.0f} ({row['ratio']:.2f}) |")
    assert second.splitlines()[-1].startswith("| 1 cam, 2 envs, chunk 8, scripted, async | ")


class Unplayed:
    """Stands in for processes and vector envs that nobody plays."""

    def __init__(self, *args: Any) -> None:
        """Needs nothing."""

    def measure(self, *args: Any) -> dict[str, float]:
        return {"steps_per_s": 100.0, "busy": 1.0, "cpu_ms_per_step": 10.0}

    def close(self) -> None:
        """Holds nothing."""


def test_each_niceness_is_measured_and_told(
    scaling: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[int] = []

    def make_vector_envs(*args: Any) -> list[Unplayed]:
        made.append(args[-1])
        return [Unplayed()]

    monkeypatch.setattr(scaling, "Independent", Unplayed)
    monkeypatch.setattr(scaling, "make_vector_envs", make_vector_envs)
    monkeypatch.setattr(scaling, "measure", Unplayed().measure)
    command = (
        "vector_scaling.py --cores 2 --envs 2 --cameras 1 --chunks 8 --ways async --niceness 5 0 --seconds 0"
    )
    monkeypatch.setattr(sys, "argv", command.split())
    run = scaling.Run(scaling.parse(), {"none": None})
    run.play()
    assert made == [5, 0]
    assert [line["niceness"] for line in run.lines if line["way"] == "async"] == [5, 0]
    printed = capsys.readouterr().out
    for niceness in (5, 0):
        assert f"busy 1.00, ms/step 10.0, niceness {niceness}\n" in printed
        assert f"  async, none, niceness {niceness}: 1.00, held by nothing\n" in printed


class Enough(Exception):
    """Ends a way of playing."""


class CountedEnv(ScriptedEnv):
    """Counts the steps of all envs of this process, and keeps their actions."""

    taken = 0
    actions: ClassVar[list[bytes]] = []

    def step(self, action: Any) -> Any:
        CountedEnv.taken += 1
        CountedEnv.actions.append(np.asarray(action).tobytes())
        return super().step(action)


@pytest.fixture
def args() -> argparse.Namespace:
    CountedEnv.taken = 0
    return argparse.Namespace(
        policy_ms=0.0,
        min_ready=2,
        done_interval=4,
        window_ms=0.0,
        seconds=0.0,
        cores=1,
        niceness=[0],
        limit_s=60.0,
    )


in_every_way = pytest.mark.parametrize(
    ("way", "mode", "groups"),
    [
        ("sync", "SameStep", 1),
        ("ready", "SameStep", 1),
        ("async", "Disabled", 1),
        ("pipelined", "SameStep", 2),
    ],
)


@in_every_way
def test_every_executed_step_is_counted_once(
    ways: ModuleType, args: argparse.Namespace, way: str, mode: str, groups: int
) -> None:
    """Episodes of 10 steps in chunks of 4, so that every third chunk is cut short."""
    factories = [lambda: CountedEnv(max_episode_steps=10)] * 2
    envs = [RolloutVectorEnv(factories, mode="sync", autoreset_mode=mode) for _ in range(groups)]
    judged = [ways._judged(env, None, 4, args, 0) for env in envs]
    told: list[int] = []

    def count(steps: int) -> None:
        told.append(steps)
        if len(told) == 20:
            raise Enough

    with pytest.raises(Enough):
        ways.WAYS[way](judged, 4, args, np.random.default_rng(0), count)
    under_way = CountedEnv.taken - sum(told)
    assert 0 <= under_way <= 2 * 4 * groups * 2  # what was sent since, and not received
    assert set(told) <= {0, 2, 4, 6, 8}
    assert sum(told) > 0


def actions_of_two_measurements(
    scaling: ModuleType, args: argparse.Namespace, way: str, mode: str, groups: int
) -> list[bytes]:
    """Those that the same envs are given in one run."""
    CountedEnv.actions.clear()
    envs = [RolloutVectorEnv([CountedEnv] * 2, mode="sync", autoreset_mode=mode) for _ in range(groups)]
    run = scaling.Run(args, {"none": None, "none again": None})
    assert len(list(run._rows([way], envs, 4, {}))) == 2
    for env in envs:
        env.close()
    return list(CountedEnv.actions)


@in_every_way
def test_no_measurement_repeats_anothers_actions(
    scaling: ModuleType, args: argparse.Namespace, way: str, mode: str, groups: int
) -> None:
    actions = actions_of_two_measurements(scaling, args, way, mode, groups)
    assert len(set(actions)) == len(actions) >= 2 * 2 * 2 * 4 * groups  # measurements, rounds, envs, steps


def test_another_run_plays_the_same_actions(scaling: ModuleType, args: argparse.Namespace) -> None:
    once, again = (actions_of_two_measurements(scaling, args, "sync", "SameStep", 1) for _ in range(2))
    assert once == again


def test_the_clock_starts_when_every_env_has_moved(ways: ModuleType, args: argparse.Namespace) -> None:
    env = RolloutVectorEnv([ScriptedEnv] * 2, mode="sync", autoreset_mode="SameStep")
    meter = ways.Meter([env], None, 4, args)
    meter.count(8)
    meter.count(8)  # two chunks of 4 in each of two envs
    with pytest.raises(ways.TimeIsOver):
        meter.count(5)
    assert meter._steps == 5
    assert meter.result["compiled"] == 0
    assert np.isfinite(meter.result["steps_per_s"])
