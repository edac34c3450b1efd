"""Runs `examples/03_score_a_video.py` as a user does."""

import json
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "03_score_a_video.py"


def test_example_prints_what_its_docstring_says(tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--out", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "first done frame         50",
        "final value              0.99",
        "value-order correlation  0.98",
        "negative rate            0.08",
    ]
    for line in done.stdout.splitlines():
        assert f"    {line}\n" in EXAMPLE.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["score.json", "score.mp4", "score.png"]
    changes = [row["progress"] for row in json.loads((tmp_path / "score.json").read_text())["progress"]]
    assert [change < 0 for change in changes].index(True) == 6  # the slip from frame 30 to 35
