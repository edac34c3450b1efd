"""A critic that judges pixels, served over HTTP as a program: `python pixel_critic.py ANSWERS_FILE`.

Every value it gives is appended to the file, so that a test can compare what a trainer got with what was paid.
"""

import json
import sys
from pathlib import Path

import numpy as np

from vlac_gym.types import CriticInfo

DONE_WORDS = "next to the ramekin"
"""A task with these words counts as done in every frame."""

DONE_ONCE_WORDS = "from table center"
"""A task with these words counts as done in the first frame that is asked about, and in no other."""


class PixelCritic:
    """`success_prob` reads the task's words; `value` is the mean change of the pixels since the first frame."""

    def __init__(self, answers: Path) -> None:
        self._answers = answers
        self._was_done = False

    def success_prob(self, frames, tasks):
        return np.array([0.95 if self._is_done(task) else 0.1 for task in tasks], np.float32)

    def _is_done(self, task):
        if DONE_ONCE_WORDS in task and not self._was_done:
            self._was_done = True
            return True
        return DONE_WORDS in task

    def progress(self, before, after, tasks, references=None):
        return np.zeros(len(before), np.float32)

    def value(self, frames, task, references=None):
        first = frames[0].astype(np.float32)
        change = [np.abs(frame.astype(np.float32) - first).mean() / 255.0 for frame in frames]
        values = np.clip(10.0 * np.array(change), 0.0, 1.0).astype(np.float32)
        with self._answers.open("a") as file:
            file.write(json.dumps({"task": task, "frames": len(frames), "value": float(values[-1])}) + "\n")
        return values

    def describe(self):
        return CriticInfo("pixels")

    def close(self):
        pass


def main() -> int:
    from vlac_gym.service.server import ServerConfig, serve

    config = ServerConfig(port=0)
    return serve(
        lambda: PixelCritic(Path(sys.argv[1])), config, on_listening=lambda url: print(url, flush=True)
    )


if __name__ == "__main__":
    raise SystemExit(main())
