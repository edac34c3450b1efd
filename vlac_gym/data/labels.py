"""What a critic should answer about recorded frames: `pair_percent`. numpy only."""

__all__ = ["pair_percent"]

import numpy as np
from numpy.typing import NDArray

from vlac_gym.types import FloatArray


def pair_percent(before: FloatArray, after: FloatArray) -> NDArray[np.int64]:
    """The whole-number answer for pairs of goal progress: the share of what was left, in percent.

    ``100 (g_after - g_before) / (1 - g_before)`` for progress, so that accumulating v + (1 - v) c gives the
    goal progress back, and for regress the negative of the reversed pair, as VLAC labels its pairs
    (arXiv 2509.15937: c(j, i) = -c(i, j)). Rounded to [-100, 100].
    """
    low, high = np.minimum(before, after), np.maximum(before, after)
    left = np.maximum(1.0 - low, 1e-9)
    share = np.where(high > low, (high - low) / left, 0.0)
    percent: NDArray[np.int64] = np.rint(100.0 * np.sign(after - before) * np.clip(share, 0.0, 1.0)).astype(
        np.int64
    )
    return percent
