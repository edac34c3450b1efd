"""Env steps per second of LIBERO's envs in processes of an interpreter with vlac-gym[libero]: `measure_baseline`.

What a GPU's rates are compared with, in the same run and on the same machine, by vector_scaling.py.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def measure_baseline(
    python: str, python_path: str, task: Mapping[str, Any], **options: object
) -> dict[str, float]:
    """All envs' steps per second, by way of vector_scaling.py, without a critic; one process per core.

    Args:
        python: The interpreter.
        python_path: Its PYTHONPATH; empty for none.
        task: `suite` and `task_id`, as in a scene's task.json.
        **options: Of vector_scaling.py, `image_size=64` for ``--image-size 64``.

    Returns:
        The mean where it was measured several times, as the processes alone are; empty if it failed, which is said on
        stderr.
    """
    cores = len(os.sched_getaffinity(0))
    environment = dict(os.environ, PYTHONPATH=python_path, OMP_NUM_THREADS="1")
    environment.setdefault("MUJOCO_GL", "egl")
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines"
        asked = {"suite": task["suite"], "task": task["task_id"], "cores": cores, "envs": cores}
        asked |= {"critics": "none", "json": lines, **options}
        script = Path(__file__).with_name("vector_scaling.py")
        command = [python, str(script)]
        for name, value in asked.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        if subprocess.run(command, env=environment).returncode:
            print(f"The baseline failed, so there are no ratios: {' '.join(command)}", file=sys.stderr)
            return {}
        rows = [json.loads(line) for line in lines.read_text().splitlines()]
    ways: dict[str, list[float]] = {}
    for row in rows:
        ways.setdefault(row["way"], []).append(row["steps_per_s"])
    return {way: sum(rates) / len(rates) for way, rates in ways.items()}
