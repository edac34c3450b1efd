"""Frames that carry the simulator's signals, for privileged critics: `EpisodeSignals`, `FrameSignals`, `signals_of`.

Whoever drives an episode asks ``critic.describe().is_privileged`` and, if it is, gives the critic frames from
`EpisodeSignals.attach`. No other critic gets such frames, so that none can look at more than the picture. A critic that
wraps a privileged one describes itself as privileged too and passes frames on as they are; nothing else is needed.
"""

__all__ = ["EpisodeSignals", "FrameSignals", "signals_of"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlac_gym.critic.base import check_frame
from vlac_gym.errors import ConfigError
from vlac_gym.types import Frame


class EpisodeSignals:
    """The simulator's signals of one episode, frame by frame.

    Args:
        env_index: Which of the envs that share a critic.
        episode: Number of the episode in that env, from 0.

    Attributes:
        successes: The simulator's verdict of every frame so far, in order.
    """

    def __init__(self, env_index: int = 0, episode: int = 0) -> None:
        self.env_index = env_index
        self.episode = episode
        self.successes: list[bool] = []

    def attach(self, frame: Frame, info: Mapping[str, Any]) -> Frame:
        """The episode's next frame with what the simulator says of it: a view of `frame`, which keeps no signals.

        Args:
            frame: uint8 (H, W, 3).
            info: The env's own `info`: `success` or `is_success` (bool) and, if the env has it, `goal_progress`
                (float in [0, 1], 1 exactly at success).

        Raises:
            ConfigError: `info` has neither, or `frame` is malformed.
        """
        check_frame(frame)
        key = next((key for key in ("success", "is_success") if key in info), None)
        if key is None:
            raise ConfigError(
                f"A privileged critic needs info['success'] from the env, got the keys {sorted(info)}. "
                "Use a critic that looks at frames, or an env that reports success."
            )
        success = bool(info[key])
        seen = frame.view(_FrameWithSignals)
        seen.signals = FrameSignals(
            self, len(self.successes), success, float(info.get("goal_progress", success))
        )
        self.successes.append(success)
        return seen


@dataclass(frozen=True, eq=False)
class FrameSignals:
    """What the simulator says of one frame.

    Attributes:
        episode: The episode it is of.
        number: Its place among the episode's frames that were attached, from 0.
        success: The simulator's verdict.
        goal_progress: The simulator's measure of completion, [0, 1]; 1.0 or 0.0 as `success` if the env has none.
    """

    episode: EpisodeSignals
    number: int
    success: bool
    goal_progress: float


def signals_of(frame: Frame, critic: str) -> FrameSignals:
    """The signals that a frame carries.

    Args:
        frame: From `EpisodeSignals.attach`, or a copy of one (`frame.copy()`, ``np.array(frame, subok=True)``).
        critic: Name of the critic that needs them, for the message.

    Raises:
        ConfigError: It carries none.
    """
    check_frame(frame)
    signals: FrameSignals | None = getattr(frame, "signals", None)
    if signals is None:
        raise ConfigError(
            f"Expected a {frame.shape} frame with the simulator's signals, got a picture alone, which the privileged "
            f"critic {critic!r} can't judge. A critic that wraps it must say is_privileged=True in describe() and "
            "pass frames on as they are; drivers attach signals by vlac_gym.critic.signals.EpisodeSignals."
        )
    return signals


class _FrameWithSignals(np.ndarray[Any, np.dtype[np.uint8]]):
    signals: FrameSignals | None

    def __array_finalize__(self, obj: Any) -> None:
        self.signals = getattr(obj, "signals", None)
