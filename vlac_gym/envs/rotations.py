"""Rotations in MuJoCo's convention: `quaternion_of`."""

__all__ = ["quaternion_of"]

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
