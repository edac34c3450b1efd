"""Runs example 05 on the real simulator with small pictures and few steps."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "05_vector_rollout.py"


def test_two_groups_play_and_report():
    command = [
        sys.executable,
        "-W",
        "error::UserWarning",
        str(EXAMPLE),
        "--num-envs",
        "2",
        "--group-size",
        "1",
    ]
    tiny = ["--task-ids", "0", "--num-chunks", "2", "--chunk-size", "2", "--max-episode-steps", "3"]
    result = subprocess.run(
        [*command, *tiny, "--image-size", "32"], capture_output=True, text=True, timeout=400, check=False
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    ended = [line for line in lines if "steps, return" in line]
    assert [line.split(", return")[0] for line in ended] == [
        "group 0 env 0 task 0: 3 steps",
        "group 1 env 0 task 0: 3 steps",
    ]
    table = {line[:30].strip(): line[30:].strip() for line in lines if line not in ended}
    assert table["env/episode_length"] == "3.000"
    assert table["env/success_rate"] == "0.000"
    assert table["critic/success_prob"] == "0.000"
    assert table["critic/false_negative_rate"] == "-"
    assert table["episodes lost"] == "0"
