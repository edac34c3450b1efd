"""What vector_scaling.py says of other vector envs, with env_speed.py's part in place of LIBERO."""

import argparse
import sys
from types import ModuleType
from typing import Any

import pytest
from benchmark_scripts import BENCHMARKS, load_benchmark

ARGS = argparse.Namespace(suite="libero_goal", image_size=64, cores=16)


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load_benchmark("scaling_peers")


def test_libero_is_measured_by_env_speeds_part(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 envs, each of whose steps takes 5 ms of the clock and 72 of the processors: 90 % of 16 cores."""
    asked: list[Any] = []

    def run_part(name: str, options: argparse.Namespace, num_workers: int) -> dict[str, Any]:
        asked.append((name, options.suite, options.image_size, num_workers))
        return {"step of one env": {"clock_s": 0.005, "cpu_s": 0.072}}

    monkeypatch.setattr(peers, "run_part", run_part)
    expected = {"steps_per_s": 200.0, "busy": 0.9, "cpu_ms_per_step": 72.0}
    assert peers.measure_libero(ARGS) == pytest.approx(expected)
    assert asked == [("libero_workers", "libero_goal", 64, 16)]


def test_what_cannot_be_imported_is_said(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "NOT_DRIVEN", {"lerobot": "no_such_peer.envs", "RLinf": "json"})
    assert peers.why_not_measured() == [
        "lerobot's vector env is not measured: No module named 'no_such_peer'.",
        "RLinf's vector env is not measured: this benchmark does not drive it.",
    ]


def test_a_peer_that_fails_leaves_the_other_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    vector_scaling = load_benchmark("vector_scaling")
    monkeypatch.setattr(vector_scaling, "measure_libero", lambda args: sys.exit("libero_workers failed"))
    run = vector_scaling.Run(argparse.Namespace(limit_s=60.0, cores=16), {})
    assert list(run._peers(8)) == []
    assert capsys.readouterr().out == "SubprocVectorEnv is not measured: libero_workers failed\n"
