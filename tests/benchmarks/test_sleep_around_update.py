"""Runs benchmarks/sleep_around_update.py: a real server process and a real update, on the CPU, as small as can be."""

import os
import re
import subprocess
import sys
from pathlib import Path

from vlac_gym.critic.vlac.tiny_checkpoint import make_tiny_checkpoint

ROOT = Path(__file__).parents[2]
TINY = (
    "--device cpu --checks 4 --tasks reach:0 --in-process --num-envs 2 --image-size 16 --step-limit 4 --chunk-size 2 "
    "--epochs 1 --value-stride 1 --done-patience 1000"
)


def test_it_updates_while_the_critic_sleeps_and_compares_the_answers(tmp_path):
    spec = f"transformers:{make_tiny_checkpoint(tmp_path / 'tiny')}?reading=rich,out_of_scale=clip"
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "benchmarks" / "sleep_around_update.py"),
            "--critic-spec",
            spec,
            *TINY.split(),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    points = re.findall(
        r"^\| (awake|asleep|asleep, updated|awake again) \| 0 \| ([\d,]+) \|  \|$", done.stdout, re.M
    )
    assert [when for when, _ in points] == ["awake", "asleep", "asleep, updated", "awake again"]
    assert all(int(resident.replace(",", "")) > 100 for _, resident in points)  # MiB: torch alone takes more
    moved = re.search(r"update of 4 chunks, critic asleep: weights moved by (\S+) at most", done.stdout)
    assert float(moved[1]) > 0.0
    rollout = r"rollout (?:before the sleep|after the wake): 2 episodes, 8 env steps"
    assert len(re.findall(rollout, done.stdout)) == 2
    low, high = re.search(
        r"4 done checks from .*, 3 pairs from (\S+) to (\S+), 4 values", done.stdout
    ).groups()
    assert float(low) < float(high)  # answers that tell frames apart, so that equal ones say something
    assert "before the sleep: identical; after the wake: identical" in done.stdout
