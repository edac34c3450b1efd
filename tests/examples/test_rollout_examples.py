"""Runs examples 01 and 02 on the real simulator with small pictures and few steps."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ["--image-size", "64", "--max-episode-steps"]


def _run(name: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-W", "error::UserWarning", str(EXAMPLES / name), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_wrap_and_step_ends_at_the_limit_with_the_critics_value():
    lines = _run("01_wrap_and_step.py", *SMALL, "20")

    assert lines[0] == (
        "task: pick up the black bowl between the plate and the ramekin and place it on the plate"
    )
    assert lines[1] == "step  20: success_prob 0.00"
    assert lines[2].startswith("step 20: the step limit came, reward 0.")
    assert lines[3] == "for audit only: the simulator saw success: False"


def test_eval_mode_calls_no_critic():
    lines = _run("02_eval_mode.py", *SMALL, "6")

    assert lines[0].startswith("train: truncated at step 6, return ")
    assert lines[1] == "eval : truncated at step 6, return 0.00"
    assert (
        lines[2] == "train: 7 critic calls; for audit only, sim_success is False"
    )  # 6 checks and 1 value list
    assert lines[3] == "eval:  'critic' in info is False; success is False"
