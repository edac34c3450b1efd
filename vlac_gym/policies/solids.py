"""Which points lie in one thing of a scene: `inside`."""

__all__ = ["inside"]

import numpy as np
from numpy.typing import NDArray

from vlac_gym.envs.scene import PrivilegedScene, Vector


def inside(scene: PrivilegedScene, name: str, points: Vector) -> NDArray[np.bool_]:
    """Which points, m, world frame, (N, 3), lie in this object or fixture, whatever else is there; bool (N,)."""
    others = tuple(other for other in (*scene.objects, *scene.fixtures) if other != name)
    return np.asarray(scene.clearance(points, ignore=others) == 0.0)
