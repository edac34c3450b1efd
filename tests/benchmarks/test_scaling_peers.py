"""What vector_scaling.py measures of other vector envs, with stand-ins for env_speed.py's parts, and what it says."""

import argparse
import sys
from types import ModuleType
from typing import Any

import pytest
from benchmark_scripts import BENCHMARKS, load_benchmark

ARGS = argparse.Namespace(
    suite="libero_goal", image_size=64, cores=16, limit_s=60.0, seconds=0.0, niceness=[0]
)
WITH_BOTH = argparse.Namespace(**vars(ARGS), rlinf_python="rlinf/python", lerobot_python="lerobot/python")
WITHOUT = argparse.Namespace(**vars(ARGS), rlinf_python=None, lerobot_python=None)
PARTS = {"SubprocVectorEnv": "libero_workers", "RLinf": "rlinf_workers", "lerobot": "lerobot_workers"}
STEP = {"step of one env": {"clock_s": 0.005, "cpu_s": 0.072}}
"""200 steps/s that take 72 ms of the processors each: 90 % of 16 cores."""

RATES = {"steps_per_s": 200.0, "busy": 0.9, "cpu_ms_per_step": 72.0}


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load_benchmark("vector_scaling")


@pytest.fixture
def peers(scaling: ModuleType) -> ModuleType:
    return sys.modules["scaling_peers"]


def test_each_peer_is_measured_by_its_part_and_has_a_row(
    scaling: ModuleType, peers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def run_part(name: str, args: argparse.Namespace, num_workers: int) -> dict[str, Any]:
        asked.append((name, args.suite, args.image_size, args.steps, args.chunk, num_workers))
        return STEP

    monkeypatch.setattr(peers, "run_part", run_part)
    rows = list(scaling.Run(WITH_BOTH, {})._peers(8))
    assert asked == [(part, "libero_goal", 64, 40, 8, 16) for part in PARTS.values()]
    what = {
        "chunk": 8,
        "envs": 16,
        "cameras": 2,
        "niceness": 0,
        "critic_name": "none",
        "looked_every": 1,
    }
    assert rows == [pytest.approx({"way": name} | what | RATES) for name in PARTS]
    rlinf = rows[1]
    assert scaling.describe(rlinf).startswith(
        "RLinf        16 envs, 2 cam, chunk 8, none         200 steps/s"
    )
    row = scaling.compared(
        rlinf | {"cores": 16}, [{"steps_per_s": 400.0, "busy": 1.0, "cpu_ms_per_step": 40.0}]
    )
    rates, profile = (part.splitlines() for part in scaling.report([row]).split("\n\n"))
    assert rates[0].endswith("| `RLinf` |")
    assert rates[2].endswith("| 200 (0.50) |")
    assert profile[2].startswith("| 2 cam, 16 envs, chunk 8, none, RLinf | 0.50 | longer steps |")


def test_what_is_not_measured_is_said(peers: ModuleType) -> None:
    assert peers.why_not_measured(WITH_BOTH) == []
    assert peers.why_not_measured(WITHOUT) == [
        "RLinf's vector env is not measured: --rlinf-python is not given.",
        "lerobot's vector env is not measured: --lerobot-python is not given.",
    ]
    assert [name for name, _ in peers.peers_asked_for(WITHOUT)] == ["SubprocVectorEnv"]


@pytest.mark.parametrize("lost", PARTS)
def test_a_peer_that_fails_leaves_the_other_rows(
    scaling: ModuleType,
    peers: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lost: str,
) -> None:
    def run_part(name: str, args: argparse.Namespace, num_workers: int) -> dict[str, Any]:
        return sys.exit(f"{name} failed") if name == PARTS[lost] else STEP

    monkeypatch.setattr(peers, "run_part", run_part)
    kept = [row["way"] for row in scaling.Run(WITH_BOTH, {})._peers(8)]
    assert kept == [name for name in PARTS if name != lost]
    assert capsys.readouterr().out == f"{lost} is not measured: {PARTS[lost]} failed\n"


@pytest.mark.parametrize("option", ["--rlinf-python", "--lerobot-python"])
def test_an_interpreter_without_peers_is_refused(
    scaling: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["vector_scaling.py", "--cores", "2", option, "python"])
    with pytest.raises(SystemExit):
        scaling.parse()
    assert "give --peers, too" in capsys.readouterr().err
