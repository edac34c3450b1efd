"""A LeRobot dataset's `meta/stats.json`: `vector_stats`, `PixelStats`.

Keys and shapes are those of huggingface/lerobot, commit 7427f31, `src/lerobot/datasets/compute_stats.py`: `min`, `max`,
`mean`, `std`, `count` and the quantiles `q01`, `q10`, `q50`, `q90`, `q99`, without which its normalisation by quantiles
(the default of pi0.5) refuses a dataset.
"""

__all__ = ["PixelStats", "vector_stats"]

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.types import Frame

_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_LEVELS = np.arange(256)


def vector_stats(values: NDArray[Any]) -> dict[str, Any]:
    """Statistics of (N,) or (N, D) numbers over N, as lists of D; quantiles are exact, `count` is N."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    return {
        "min": rows.min(axis=0).tolist(),
        "max": rows.max(axis=0).tolist(),
        "mean": rows.mean(axis=0).tolist(),
        "std": rows.std(axis=0).tolist(),
        "count": [len(rows)],
        **{name: np.quantile(rows, q, axis=0).tolist() for name, q in _QUANTILES.items()},
    }


class PixelStats:
    """Statistics of one camera's pictures by channel; keeps counts of the 256 levels and no picture."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), np.int64)
        self._frames = 0

    def add(self, frame: Frame) -> None:
        """Counts the pixels of one picture, uint8 (H, W, 3)."""
        self._counts += [np.bincount(frame[..., c].reshape(-1), minlength=256) for c in range(3)]
        self._frames += 1

    def result(self) -> dict[str, Any]:
        """Statistics in [0, 1], each of shape (3, 1, 1); `count` is the number of pictures."""
        pixels = self._counts[0].sum()
        mean = self._counts @ _LEVELS / pixels
        variance = self._counts @ _LEVELS**2 / pixels - mean**2
        levels = {
            "min": [np.flatnonzero(counts)[0] for counts in self._counts],
            "max": [np.flatnonzero(counts)[-1] for counts in self._counts],
            "mean": mean,
            "std": np.sqrt(np.maximum(variance, 0.0)),
            **{name: self._quantile(q) for name, q in _QUANTILES.items()},
        }
        shaped = {name: np.reshape(np.divide(v, 255), (3, 1, 1)).tolist() for name, v in levels.items()}
        return {**shaped, "count": [self._frames]}

    def _quantile(self, q: float) -> NDArray[np.int64]:
        """By channel, the lowest level that at least a share `q` of the pixels does not exceed."""
        shares = self._counts.cumsum(axis=1) / self._counts.sum(axis=1, keepdims=True)
        level: NDArray[np.int64] = (shares >= q).argmax(axis=1)
        return level
