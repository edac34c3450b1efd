"""Objects that stand below something, such as an open drawer: `is_roofed`, `way_out`."""

__all__ = ["is_roofed", "way_out"]

import math

import numpy as np

from vlac_gym.envs.scene import PrivilegedScene, Vector

_GAPS_M = tuple(0.06 + 0.01 * k for k in range(13))
"""Heights above the object's top that are probed; what is closer is taken for the object's own container."""
_ROOM_BELOW_M = 0.02
_MARGIN_M = 0.02
_TOUCH_M = 0.006
"""With probes 1 cm apart, no thin plate slips through between them."""
_DISTANCES_M = (0.06, 0.09, 0.12, 0.15, 0.18)
_DIRECTIONS = 12


def is_roofed(scene: PrivilegedScene, name: str, shift: Vector | None = None) -> bool:
    """True if something hangs 6 to 18 cm above the object, where it is or moved by `shift` m, (3,).

    Only fixtures hang. What stands beside the object and is taller than it is no roof: below a roof there is room.
    """
    low, high = scene.object_bounds(name)
    offset = np.zeros(3) if shift is None else shift
    xs = np.linspace(low[0] - _MARGIN_M, high[0] + _MARGIN_M, 6) + offset[0]
    ys = np.linspace(low[1] - _MARGIN_M, high[1] + _MARGIN_M, 6) + offset[1]
    heights = high[2] + np.array([_ROOM_BELOW_M, *_GAPS_M])
    points = np.array([[x, y, z] for x in xs for y in ys for z in heights])
    hit = (scene.clearance(points, ignore=scene.objects) <= _TOUCH_M).reshape(-1, len(heights))
    return bool(np.any(hit[:, 1:].any(axis=1) & ~hit[:, 0]))


def way_out(scene: PrivilegedScene, name: str) -> Vector:
    """The shortest horizontal shift in m, (3,), after which nothing hangs above the object; zero if none helps."""
    for distance in _DISTANCES_M:
        for angle in np.arange(_DIRECTIONS) * (2.0 * math.pi / _DIRECTIONS):
            shift = distance * np.array([math.cos(angle), math.sin(angle), 0.0])
            if not is_roofed(scene, name, shift) and _is_free(scene, name, shift):
                return shift
    return np.zeros(3)


def _is_free(scene: PrivilegedScene, name: str, shift: Vector) -> bool:
    """True if the object, lifted a little, hits nothing at the end of its shift."""
    low, high = scene.object_bounds(name)
    xs = np.linspace(low[0], high[0], 4) + shift[0]
    ys = np.linspace(low[1], high[1], 4) + shift[1]
    points = np.array([[x, y, z] for x in xs for y in ys for z in (low[2] + 0.03, high[2] + 0.03)])
    return bool(np.min(scene.clearance(points, ignore=(name,))) > _TOUCH_M)
