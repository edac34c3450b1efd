"""A critic that reads what synthetic frames spell: `SeeingCritic`."""

from typing import Any

import numpy as np

from vlac_gym.errors import CriticResponseError
from vlac_gym.types import CriticInfo


class SeeingCritic:
    """Reads the synthetic frames: certain at successes, progress from the step; counts and can refuse."""

    def __init__(self, refuses: int | None = None) -> None:
        self.refuses = refuses
        self.texts: list[str] = []

    def success_prob(self, frames: Any, tasks: Any) -> Any:
        self.texts += list(tasks)
        if self.refuses is not None and any(f[0, 1, 0] == self.refuses for f in frames):
            raise CriticResponseError("no number in 'maybe'")
        return np.array(
            [0.95 if f[0, 1, 1] and "please" not in t else 0.1 for f, t in zip(frames, tasks)], np.float32
        )

    def progress(self, before: Any, after: Any, tasks: Any, references: Any = None) -> Any:
        return np.array([(int(b[0, 1, 0]) - int(a[0, 1, 0])) / 50 for a, b in zip(before, after)], np.float32)

    def value(self, frames: Any, task: str, references: Any = None) -> Any:
        return np.array([abs(int(f[0, 1, 0]) - int(frames[0][0, 1, 0])) / 50 for f in frames], np.float32)

    def describe(self) -> CriticInfo:
        return CriticInfo("seeing")

    def close(self) -> None:
        pass
