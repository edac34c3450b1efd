"""Rotations in MuJoCo's convention: `axis_angle_of`, `quaternion_of`."""

__all__ = ["axis_angle_of", "quaternion_of"]

import math

import numpy as np
from numpy.typing import NDArray


def quaternion_of(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit quaternion (w, x, y, z), w >= 0, of a rotation matrix; largest component first (Shepperd 1978)."""
    m = matrix
    trace = m[0, 0] + m[1, 1] + m[2, 2]
    squares = 1.0 + np.array([trace, *(2.0 * np.diag(m) - trace)])
    k = int(np.argmax(squares))
    rows = (
        (squares[0], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]),
        (m[2, 1] - m[1, 2], squares[1], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]),
        (m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], squares[2], m[1, 2] + m[2, 1]),
        (m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], squares[3]),
    )
    quaternion = np.array(rows[k]) / (2.0 * np.sqrt(squares[k]))
    positive: NDArray[np.float64] = -quaternion if quaternion[0] < 0 else quaternion
    return positive


def axis_angle_of(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axis-angle rad (3,) of a unit quaternion (w, x, y, z), angle in [0, 2 pi], as in openpi's LIBERO client."""
    w = min(max(float(quaternion[0]), -1.0), 1.0)
    sine = math.sqrt(1.0 - w * w)
    if math.isclose(sine, 0.0):
        return np.zeros(3)
    angle: NDArray[np.float64] = quaternion[1:] * (2.0 * math.acos(w)) / sine
    return angle
