"""Where to take hold of an object from above: `Grasp`, `choose_grasp`.

Narrow objects are held across their middle, wide ones (bowls, plates) by the rim. Among the turns of the hand
and, for wide objects, the places on the rim, the one wins that leaves most room for fingers and hand.
"""

__all__ = ["Grasp", "Hold", "choose_grasp"]

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from vlac_gym.envs.scene import PrivilegedScene, Vector
from vlac_gym.policies.overhangs import is_roofed
from vlac_gym.policies.solids import inside
from vlac_gym.policies.waypoints import hand_rotation, rotation_about

_WIDEST_M = 0.07
"""Widest object held across its middle: the fingers open 0.08 m."""
_RIM_INSET_M = 0.009
_RIM_DEPTH_M = 0.028
_MIDDLE_DEPTH_M = 0.05
_FLOOR_CLEARANCE_M = 0.012

_UP = np.array([0.0, 0.0, 1.0])
_YAWS_RAD = tuple(math.radians(degrees) for degrees in (0, 15, -15, 30, -30, 45, -45, 60, -60, 75, -75, 90))
_TIPPED_RAD = 0.35
_MOST_LEAN_RAD = 0.9
_LEANS_RAD = (0.0, 0.2, -0.2, 0.35, -0.35)
"""How far the hand leans to reach below something."""
_ENOUGH_ROOM_M = 0.02
_TURN_COST_M = 0.012
"""Room in m that a turn by 90 degrees must win to be worth it."""
_WIDTH_COST = 0.3
_KNOB_GRID_M = 0.003
_KNOB_SKIN_M = 0.002
_KNOB_HEIGHT_M = 0.012
"""A knob stands out by at least this much; the high side of a leaning bowl's rim gets wide within it."""
_WIDEST_KNOB_M = 0.04
_TRIED_COST_M = 0.1
"""More than any other term: what failed is tried again only when all else has failed, too."""
_SAME_PLACE_M = 0.02
_SAME_TURN = math.cos(math.radians(20))

_FINGER_REACH_M = 0.052
"""From the grasp's middle to the outer side of an open finger."""
_HAND_HALF_M = (0.105, 0.035)
"""Half size of the hand's body along and across the closing direction."""
_HAND_HEIGHT_M = (0.075, 0.14)
"""Height of the hand's body above the finger tips, lower and upper side."""

_FLAT_HAND_HEIGHT_M = (0.05, 0.095)
_WRIST_HEIGHT_M = (0.11, 0.15, 0.2)
_WRIST_RADIUS_M = 0.05
"""Below something the hand's true shape counts: flatter than the box above, with the wrist on top."""


class Hold(NamedTuple):
    """A hand that took hold of an object, or tried to.

    Attributes:
        offset: Finger tips relative to the object's position, m, world axes, (3,).
        rotation: Orientation of the hand, (3, 3).
    """

    offset: Vector
    rotation: Vector


@dataclass(frozen=True, eq=False)
class Grasp:
    """A pose of the open hand around an object.

    Attributes:
        offset: Finger tips relative to the object's position, m, world axes, (3,).
        rotation: Orientation of the hand, (3, 3).
        upright: Orientation of the hand, (3, 3), in which a held object stands upright.
        room_m: Least distance from fingers and hand to anything else, capped at 0.02.
    """

    offset: Vector
    rotation: Vector
    upright: Vector
    room_m: float


def choose_grasp(scene: PrivilegedScene, name: str, tried: Sequence[Hold] = ()) -> Grasp:
    """The best grasp from above of an object in its present pose, unlike the `tried` ones, which failed."""
    candidates = [c for yaw in _YAWS_RAD if (c := _middle(scene, name, yaw)) is not None]
    if not candidates and _tilt(scene, name) > _TIPPED_RAD:
        return _tipped_rim(scene, name)
    if not candidates:
        candidates = _knobs(scene, name)
    if not candidates:
        candidates = [c for yaw in _YAWS_RAD for c in _rims(scene, name, yaw)]
    roofed = is_roofed(scene, name)
    if roofed:
        candidates = [replace(c, lean=lean) for c in candidates for lean in _LEANS_RAD]
    rooms = [_room(scene, name, c, roofed) for c in candidates]
    origin = scene.object_position(name)
    scores = [
        room
        - _TURN_COST_M * (abs(c.yaw) + abs(c.lean)) / (math.pi / 2.0)
        - _WIDTH_COST * c.width
        - _TRIED_COST_M * sum(_is_like(c, hold, origin) for hold in tried)
        for room, c in zip(rooms, candidates, strict=True)
    ]
    winner = int(np.argmax(scores))
    chosen = candidates[winner]
    offset = chosen.point - origin
    return Grasp(offset, chosen.rotation, hand_rotation(chosen.yaw), rooms[winner])


def _up_axis(scene: PrivilegedScene, name: str) -> Vector:
    """World direction of the object's own z axis."""
    w, x, y, z = scene.object_quaternion(name)
    return np.array([2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y)])


def _tilt(scene: PrivilegedScene, name: str) -> float:
    return math.acos(float(np.clip(_up_axis(scene, name)[2], -1.0, 1.0)))


def _tipped_rim(scene: PrivilegedScene, name: str) -> Grasp:
    """A bowl that lies tipped over: by the highest place of its rim, with the hand leaning like the bowl.

    When the hand is upright again, so is the bowl.
    """
    axis = _up_axis(scene, name)
    upwards = _UP - axis * axis[2]
    upwards /= np.linalg.norm(upwards)
    origin = scene.object_position(name)
    brim = scene.object_extent(name, axis)[1] - float(origin @ axis)
    side = np.cross(axis, upwards)
    low, high = scene.object_extent(name, side)
    radius = (high - low) / 2.0
    offset = axis * (brim - _RIM_DEPTH_M) + upwards * (radius - _RIM_INSET_M)
    lean = min(_tilt(scene, name), _MOST_LEAN_RAD)
    turn = rotation_about(np.cross(_UP, axis), lean)
    flat = np.array([upwards[0], upwards[1], 0.0])
    yaw = math.atan2(-flat[0], flat[1])
    yaw = (yaw + math.pi / 2.0) % math.pi - math.pi / 2.0
    return Grasp(offset, turn @ hand_rotation(yaw), hand_rotation(yaw), 0.0)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """Finger tips at `point`, hand turned by `yaw` and leaning by `lean` rad, `width` m between the fingers."""

    point: Vector
    yaw: float
    width: float
    lean: float = 0.0

    @property
    def rotation(self) -> Vector:
        """Orientation of the hand: it leans along its closing direction."""
        upright = hand_rotation(self.yaw)
        return upright if self.lean == 0.0 else rotation_about(_axes(self.yaw)[1], self.lean) @ upright


def _is_like(candidate: _Candidate, hold: Hold, origin: Vector) -> bool:
    """True if both take the object at the same place with the same closing direction, which has no sign."""
    near = math.dist(candidate.point, origin + hold.offset) < _SAME_PLACE_M
    return near and abs(float(candidate.rotation[:, 0] @ hold.rotation[:, 0])) > _SAME_TURN


def _middle(scene: PrivilegedScene, name: str, yaw: float) -> _Candidate | None:
    """Around the object's middle, if it fits between the fingers."""
    along, across = _axes(yaw)
    low, high = scene.object_extent(name, along)
    if high - low > _WIDEST_M:
        return None
    point = along * ((low + high) / 2.0) + across * (sum(scene.object_extent(name, across)) / 2.0)
    bottom, top = scene.object_extent(name, _UP)
    point[2] = max(bottom + _FLOOR_CLEARANCE_M, top - min(_MIDDLE_DEPTH_M, (top - bottom) / 2.0))
    return _Candidate(point, yaw, high - low)


def _knobs(scene: PrivilegedScene, name: str) -> list[_Candidate]:
    """Around the knob on top of an object that is too wide itself, such as a pot's lid; none without a knob."""
    low, high = scene.object_bounds(name)
    places = np.array(
        [
            [x, y]
            for x in np.arange(low[0], high[0], _KNOB_GRID_M)
            for y in np.arange(low[1], high[1], _KNOB_GRID_M)
        ]
    )
    boxes = []
    for depth in (_KNOB_SKIN_M, _KNOB_HEIGHT_M):
        grid = np.column_stack([places, np.full(len(places), high[2] - depth)])
        solid = places[inside(scene, name, grid)]
        if not len(solid) or np.max(np.ptp(solid, axis=0)) > _WIDEST_KNOB_M:
            return []
        boxes.append((solid.min(axis=0), solid.max(axis=0)))
    (first, last), _ = boxes
    point = np.array([*(first + last) / 2.0, high[2] - _KNOB_HEIGHT_M])
    return [_Candidate(point, yaw, float(np.max(last - first))) for yaw in _YAWS_RAD]


def _rims(scene: PrivilegedScene, name: str, yaw: float) -> list[_Candidate]:
    """Around the two places of the rim that the closing direction points to."""
    along, across = _axes(yaw)
    low, high = scene.object_extent(name, along)
    middle = across * (sum(scene.object_extent(name, across)) / 2.0)
    bottom, top = scene.object_extent(name, _UP)
    candidates = []
    for side in (high - _RIM_INSET_M, low + _RIM_INSET_M):
        point = middle + along * side
        point[2] = max(bottom + _FLOOR_CLEARANCE_M, top - _RIM_DEPTH_M)
        candidates.append(_Candidate(point, yaw, 0.0))
    return candidates


def _room(scene: PrivilegedScene, name: str, candidate: _Candidate, roofed: bool) -> float:
    along, across, ahead = candidate.rotation.T
    point = candidate.point
    probes = [point + s * _FINGER_REACH_M * along - h * ahead for s in (-1, 1) for h in (0.0, 0.03)]
    probes += [
        point + s * _HAND_HALF_M[0] * along + t * _HAND_HALF_M[1] * across - h * ahead
        for s in (-1, 0, 1)
        for t in (-1, 1)
        for h in (_FLAT_HAND_HEIGHT_M if roofed else _HAND_HEIGHT_M)
    ]
    if roofed:
        probes += [
            point + s * _WRIST_RADIUS_M * side - h * ahead
            for s in (-1, 1)
            for side in (along, across)
            for h in _WRIST_HEIGHT_M
        ]
    return min(_ENOUGH_ROOM_M, float(np.min(scene.clearance(np.array(probes), ignore=(name,)))))


def _axes(yaw: float) -> tuple[Vector, Vector]:
    """Closing direction of the fingers and the horizontal direction across it."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([-s, c, 0.0]), np.array([c, s, 0.0])
