"""`pixel_critic.py` as a program of its own, and what it answered: `CriticProcess`."""

import json
import subprocess
import sys
from pathlib import Path


class CriticProcess:
    """A critic server behind `url`; start it anew for a clean list of answers."""

    def __init__(self, answers: Path) -> None:
        self._answers = answers
        script = Path(__file__).with_name("pixel_critic.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(answers)], stdout=subprocess.PIPE, text=True
        )
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("http://")

    def values(self) -> list[float]:
        """Last entry of every value list so far, in the order of the questions."""
        if not self._answers.exists():
            return []
        return [json.loads(line)["value"] for line in self._answers.read_text().splitlines()]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._process.stdout.close()
