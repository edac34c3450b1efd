"""How near the fingers are to an object that they may hold: `are_fingers_near`."""

__all__ = ["are_fingers_near"]

from collections.abc import Sequence
from typing import Any

from vlac_gym.extras import needs

_MOST_GAP_M = 0.003
"""Fingers that slip along a bowl's rim missed it by 0 to 0.4 mm for one or two steps, once by 2.6 mm (expert's
episodes on libero_spatial)."""


def are_fingers_near(sim: Any, fingers: Sequence[Sequence[str]], geoms: Sequence[str]) -> bool:
    """True if every finger touches one of the geoms or is within 3 mm of it.

    Args:
        sim: robosuite's `MjSim`.
        fingers: Names of each finger's geoms.
        geoms: Names of the object's collision geoms.
    """
    with needs("LIBERO", "libero"):
        import mujoco

    model, data = sim.model._model, sim.data._data
    object_ids = [sim.model.geom_name2id(name) for name in geoms]
    return all(
        any(
            mujoco.mj_geomDistance(model, data, sim.model.geom_name2id(name), other, 2 * _MOST_GAP_M, None)
            <= _MOST_GAP_M
            for name in finger
            for other in object_ids
        )
        for finger in fingers
    )
