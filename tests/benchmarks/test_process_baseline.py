"""What process_baseline.py asks of another interpreter, with a script in that one's place."""

import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from benchmark_scripts import BENCHMARKS, load_benchmark

TASK = {"suite": "libero_goal", "task_id": 3}

INTERPRETER = """#!{python}
import json, os, sys
words = sys.argv[2:]
options = dict(zip(words[::2], words[1::2]))
seen = {{"script": sys.argv[1], "options": options, "path": os.environ["PYTHONPATH"]}}
open({seen!r}, "w").write(json.dumps(seen))
with open(options["--json"], "w") as lines:
    for way, rate in (("independent", 500.0), ("sync", 256.0), ("independent", 525.0)):
        lines.write(json.dumps({{"way": way, "steps_per_s": rate}}) + "\\n")
sys.exit({status})
"""


@pytest.fixture
def process_baseline() -> ModuleType:
    return load_benchmark("process_baseline")


def interpreter(folder: Path, status: int = 0) -> tuple[str, Path]:
    """Stands in for Python, and the file in which it keeps what it was asked."""
    script, seen = folder / "python", folder / "seen.json"
    script.write_text(INTERPRETER.format(python=sys.executable, seen=str(seen), status=status))
    script.chmod(0o755)
    return str(script), seen


def test_rates_come_by_way_from_one_process_per_core(process_baseline: ModuleType, tmp_path: Path) -> None:
    python, seen = interpreter(tmp_path)
    rates = process_baseline.measure_baseline(python, "a:b", TASK, ways="sync", image_size=64)
    assert rates == {"independent": 512.5, "sync": 256.0}
    asked = json.loads(seen.read_text())
    cores = str(len(os.sched_getaffinity(0)))
    assert asked["options"].pop("--json")
    assert asked == {
        "script": str(BENCHMARKS / "vector_scaling.py"),
        "path": "a:b",
        "options": {
            "--suite": "libero_goal",
            "--task": "3",
            "--cores": cores,
            "--envs": cores,
            "--critics": "none",
            "--ways": "sync",
            "--image-size": "64",
        },
    }


def test_a_baseline_that_fails_gives_no_rates(
    process_baseline: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python, _ = interpreter(tmp_path, status=3)
    assert process_baseline.measure_baseline(python, "", TASK) == {}
    assert f"The baseline failed, so there are no ratios: {python} " in capsys.readouterr().err
