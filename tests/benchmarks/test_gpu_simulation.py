"""What gpu_simulation.py does without mujoco-warp."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu_simulation.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    (tmp_path / "task.json").write_text("{}")
    return tmp_path


def test_help_needs_no_warp() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "--replay" in done.stdout


def test_a_folder_without_a_recording_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "--check")
    assert done.returncode == 2
    assert f"{tmp_path} has no task.json; write it: python benchmarks/gpu_recording.py" in done.stderr


def test_nothing_to_do_is_an_error(recording: Path) -> None:
    done = run(recording)
    assert done.returncode == 2
    assert "give --worlds, --check, --replay, --expert or --verdicts" in done.stderr


def test_numbers_below_one_are_refused(recording: Path) -> None:
    done = run(recording, "--worlds", 64, 0, "--pictures", -1, "--expert-steps", -2)
    assert done.returncode == 2
    assert "expected numbers from 1 on, got [0, -1, -2]" in done.stderr
