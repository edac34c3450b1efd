"""Pairs of an episode's frames, and what VLAC said of them: `episode_pairs`, `PairValues`."""

__all__ = ["PairValues", "episode_pairs"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError


@dataclass(frozen=True, eq=False)
class PairValues:
    """Pairs of one episode and what the critic said of them, unclipped, in units of 1.

    Attributes:
        pairs: Indices (before, after) of each pair.
        progress: float64 (P,), one per pair.
        values: float64 (P + 1,), accumulated from 0 by the critic's value rule.
    """

    pairs: tuple[tuple[int, int], ...]
    progress: NDArray[np.float64]
    values: NDArray[np.float64]


def episode_pairs(
    num_frames: int, stride_steps: int = 1, *, overlapping: bool = False
) -> tuple[tuple[int, int], ...]:
    """Indices of the frame pairs `stride_steps` apart, in order.

    Args:
        num_frames: Frames of the episode.
        stride_steps: Distance of the two frames; >= 1. Frames after the last whole stride are left out.
        overlapping: A pair ends at every frame from `stride_steps` on, and not only at every stride.
    """
    if stride_steps < 1:
        raise ConfigError(f"Expected stride_steps >= 1, got {stride_steps!r}.")
    ends = range(stride_steps, num_frames, 1 if overlapping else stride_steps)
    return tuple((end - stride_steps, end) for end in ends)
