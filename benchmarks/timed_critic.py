"""What the benchmarks of the service share: `TimedCritic`, a critic that only waits, and `warm_up`."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.critic.base import Critic
from vlac_gym.critic.registry import known_critics, register_critic
from vlac_gym.types import CriticInfo


class TimedCritic:
    """Brightness, after the time that a GPU would take: `timed:A,B` waits A + B * frames milliseconds.

    It isolates what the service costs from what a model costs on this machine. 17 and 4.4 are VLAC-2B's shapes
    on one H200 as one plain forward: 46 requests/s alone, 215 at batch 64.
    """

    def __init__(self, argument: str) -> None:
        self._call_s, self._frame_s = (float(text) / 1000 for text in argument.split(","))

    def success_prob(self, frames: list[np.ndarray], tasks: list[str]) -> np.ndarray:
        time.sleep(self._call_s + self._frame_s * len(frames))
        return np.array([frame[::8, ::8].mean() / 255 for frame in frames], np.float32)

    def value(self, frames: list[np.ndarray], task: str, references: object = None) -> np.ndarray:
        return self.values([frames], [task])[0]

    def values(self, episodes: Any, tasks: Any, references: object = None) -> list[np.ndarray]:
        """Pairs cost as much as frames."""
        time.sleep(self._call_s + self._frame_s * sum(len(frames) - 1 for frames in episodes))
        return [np.linspace(0, 0.5, len(frames), dtype=np.float32) for frames in episodes]

    def describe(self) -> CriticInfo:
        return CriticInfo("timed")

    def close(self) -> None:
        """Holds nothing."""


def register_timed() -> None:
    """Lets `make_critic` find `TimedCritic`, in this process or another."""
    if "timed" not in known_critics():
        sys.path.insert(0, str(Path(__file__).parent))
        register_critic("timed", "timed_critic:TimedCritic")


def warm_up(critic: Critic) -> None:
    """What the service does before its first question."""
    ready = getattr(critic, "warm_up", None)
    if ready is not None:
        ready()
