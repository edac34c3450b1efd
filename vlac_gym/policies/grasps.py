"""Where to take hold of an object from above: `Grasp`, `choose_grasp`.

Narrow objects are held across their middle, wide ones (bowls, plates) by the rim. Among the turns of the hand
and, for wide objects, the places on the rim, the one wins that leaves most room for fingers and hand.
"""

__all__ = ["Grasp", "choose_grasp"]

import math
from dataclasses import dataclass

import numpy as np

from vlac_gym.envs.scene import PrivilegedScene, Vector
from vlac_gym.policies.waypoints import hand_rotation

_WIDEST_M = 0.07
"""Widest object held across its middle: the fingers open 0.08 m."""
_RIM_INSET_M = 0.009
_RIM_DEPTH_M = 0.028
_MIDDLE_DEPTH_M = 0.05
_FLOOR_CLEARANCE_M = 0.012

_YAWS_RAD = tuple(math.radians(degrees) for degrees in (0, 15, -15, 30, -30, 45, -45, 60, -60, 75, -75, 90))
_ENOUGH_ROOM_M = 0.02
_TURN_COST_M = 0.012
"""Room in m that a turn by 90 degrees must win to be worth it."""
_WIDTH_COST = 0.3

_FINGER_REACH_M = 0.052
"""From the grasp's middle to the outer side of an open finger."""
_HAND_HALF_M = (0.105, 0.035)
"""Half size of the hand's body along and across the closing direction."""
_HAND_HEIGHT_M = (0.075, 0.14)
"""Height of the hand's body above the finger tips, lower and upper side."""


@dataclass(frozen=True, eq=False)
class Grasp:
    """A pose of the open hand around an object.

    Attributes:
        offset: Finger tips relative to the object's position, m, world axes, (3,).
        rotation: Orientation of the hand, (3, 3).
        room_m: Least distance from fingers and hand to anything else, capped at 0.02.
    """

    offset: Vector
    rotation: Vector
    room_m: float


def choose_grasp(scene: PrivilegedScene, name: str) -> Grasp:
    """The best grasp from above of an object in its present pose."""
    best: tuple[float, Grasp] | None = None
    for yaw in _YAWS_RAD:
        for point, width in _points(scene, name, yaw):
            room = _room(scene, name, point, yaw)
            score = room - _TURN_COST_M * abs(yaw) / (math.pi / 2.0) - _WIDTH_COST * width
            if best is None or score > best[0]:
                offset = point - scene.object_position(name)
                best = (score, Grasp(offset, hand_rotation(yaw), room))
    assert best is not None  # every yaw gives at least one point
    return best[1]


def _points(scene: PrivilegedScene, name: str, yaw: float) -> list[tuple[Vector, float]]:
    """Points for the finger tips at one turn of the hand, with the width to be held (0 for a rim)."""
    along, across = _axes(yaw)
    low, high = scene.object_extent(name, along)
    middle = across * (sum(scene.object_extent(name, across)) / 2.0)
    bottom, top = scene.object_extent(name, np.array([0.0, 0.0, 1.0]))
    if high - low <= _WIDEST_M:
        height = max(bottom + _FLOOR_CLEARANCE_M, top - min(_MIDDLE_DEPTH_M, (top - bottom) / 2.0))
        point = middle + along * ((low + high) / 2.0)
        point[2] = height
        return [(point, high - low)]
    rims = []
    for side in (high - _RIM_INSET_M, low + _RIM_INSET_M):
        point = middle + along * side
        point[2] = max(bottom + _FLOOR_CLEARANCE_M, top - _RIM_DEPTH_M)
        rims.append((point, 0.0))
    return rims


def _room(scene: PrivilegedScene, name: str, point: Vector, yaw: float) -> float:
    along, across = _axes(yaw)
    up = np.array([0.0, 0.0, 1.0])
    probes = [point + s * _FINGER_REACH_M * along + h * up for s in (-1, 1) for h in (0.0, 0.03)]
    probes += [
        point + s * _HAND_HALF_M[0] * along + t * _HAND_HALF_M[1] * across + h * up
        for s in (-1, 0, 1)
        for t in (-1, 1)
        for h in _HAND_HEIGHT_M
    ]
    return min(_ENOUGH_ROOM_M, float(np.min(scene.clearance(np.array(probes), ignore=(name,)))))


def _axes(yaw: float) -> tuple[Vector, Vector]:
    """Closing direction of the fingers and the horizontal direction across it."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([-s, c, 0.0]), np.array([c, s, 0.0])
