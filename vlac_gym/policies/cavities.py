"""Putting things into what has a roof and an open side, such as a microwave: `Mouth`, `mouth_of`, `slide_in`.

From above there is no way in. The hand holds the object by a handle that looks out of the opening, so that the hand
itself stays outside, slides it in at the height of the floor and pushes no further than the goal asks: a door that
closes does the rest.
"""

__all__ = ["Mouth", "mouth_of", "slide_in"]

from dataclasses import dataclass, replace

import numpy as np

from vlac_gym.envs.scene import Predicate, PrivilegedScene, Vector
from vlac_gym.policies.solids import inside
from vlac_gym.policies.waypoints import CLOSE, OPEN, OPEN_STEPS, Waypoint, close_hand, hand_rotation

_SIDES = tuple(np.array(side, dtype=np.float64) for side in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)))
_UP = np.array([0.0, 0.0, 1.0])
_ROOF_M = np.arange(0.0, 0.1, 0.005)
_FLOOR_M = np.arange(0.0, 0.2, 0.002)
"""Heights above a region's top and depths below its middle in which a roof and a floor are looked for."""
_WAY_M = np.arange(0.0, 0.3, 0.01)
_WAY_ROOM_M = 0.04
_ASIDE_M = np.arange(-0.08, 0.081, 0.01)
_AS_GOOD_M = 0.001
_INSIDE_M = 0.015
"""So far behind the region's edge, which must be passed, the object is let go: the hand has no room below the roof."""
_OVER_FLOOR_M = 0.012
_BEFORE_M = 0.16
_ABOVE_M = 0.08
_RETREAT_M = 0.12

_GRID_M = 0.004
_HANDLE_DEPTH_M = 0.02
_WIDEST_HANDLE_M = 0.04
_HANDLE_HOLD_M = 0.02


@dataclass(frozen=True, eq=False)
class Mouth:
    """How something gets in.

    Attributes:
        outwards: Where the open side looks: horizontal unit vector, (3,).
        place: Where on the floor the object is let go, just inside, m, world frame, (3,).
    """

    outwards: Vector
    place: Vector


def mouth_of(scene: PrivilegedScene, predicate: Predicate) -> Mouth | None:
    """The open side of what the goal puts something in, if that has a roof and belongs to a fixture; else None."""
    moved, target = predicate.args
    if predicate.name != "in" or scene.owner(target) not in scene.fixtures or scene.is_jointed(target):
        return None
    low, high = scene.object_bounds(target)
    centre = (low + high) / 2.0
    above = centre + np.outer(high[2] - centre[2] + _ROOF_M, _UP)
    if np.min(scene.clearance(above, ignore=scene.objects)) > 0.0:
        return None
    rooms = [np.min(scene.clearance(centre + np.outer(_WAY_M, side), ignore=(moved,))) for side in _SIDES]
    if max(rooms) < _WAY_ROOM_M:
        return None
    outwards = _SIDES[int(np.argmax(rooms))]
    depth = float((high - low) @ np.abs(outwards)) / 2.0
    return Mouth(outwards, _place(scene, centre, outwards, depth))


def _place(scene: PrivilegedScene, centre: Vector, outwards: Vector, depth: float) -> Vector:
    """Just behind the region's edge, in the middle between the walls, on the floor."""
    across = np.cross(_UP, outwards)
    back = np.linspace(0.0, depth, 4)  # the inner half of a region may lie in the wall
    rooms = [
        np.min(scene.clearance(centre + a * across + np.outer(back, outwards), ignore=scene.objects))
        for a in _ASIDE_M
    ]
    middle = float(np.mean(_ASIDE_M[np.asarray(rooms) >= max(rooms) - _AS_GOOD_M]))
    place = centre + middle * across + (depth - _INSIDE_M) * outwards
    below = centre + middle * across - np.outer(_FLOOR_M, _UP)
    solid = below[scene.clearance(below, ignore=scene.objects) == 0.0]
    if len(solid):
        place[2] = float(np.max(solid[:, 2]))
    return np.asarray(place)


def slide_in(scene: PrivilegedScene, name: str, mouth: Mouth) -> tuple[Waypoint, ...] | None:
    """Takes the object by the handle that looks out of the mouth and slides it in; None without such a handle."""
    hold = _handle(scene, name, mouth.outwards)
    if hold is None:
        return None
    out = mouth.outwards
    turn = _across(out)
    above = max(float(scene.end_effector_position[2]), float(scene.object_bounds(name)[1][2]) + _ABOVE_M)
    reach = Waypoint("reach", "object", hold, name, height=above, rotation=turn, tolerance_m=0.01)
    height = float(mouth.place[2]) + _OVER_FLOOR_M
    held = replace(
        reach,
        stage="lift",
        offset=np.zeros(3),
        height=height,
        carried=name,
        gripper=CLOSE,
        speed=0.6,
        needs_grasp_of=name,
    )
    carry = replace(held, stage="carry", frame="world", anchor="", offset=mouth.place + _BEFORE_M * out)
    return (
        reach,
        replace(reach, stage="descend", height=None, tolerance_m=0.006, speed=0.5),
        close_hand(turn, name),
        held,
        carry,
        replace(carry, stage="lower", offset=mouth.place, speed=0.4, tolerance_m=0.004, needs_grasp_of=None),
        Waypoint("release", "tip", np.zeros(3), gripper=OPEN, hold_steps=OPEN_STEPS),
        Waypoint("retreat", "tip", _RETREAT_M * out, gripper=OPEN, tolerance_m=0.02),
    )


def _across(outwards: Vector) -> Vector:
    """Hand that points down and closes across a horizontal direction, (3, 3)."""
    return hand_rotation(0.0) if abs(outwards[0]) > abs(outwards[1]) else hand_rotation(np.pi / 2.0)


def _handle(scene: PrivilegedScene, name: str, outwards: Vector) -> Vector | None:
    """Where to take the narrow part that sticks out of an object's side, m from its position, (3,)."""
    low, high = scene.object_bounds(name)
    axes = [np.arange(low[k] + _GRID_M / 2.0, high[k], _GRID_M) for k in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    end = max(float(low @ outwards), float(high @ outwards))
    grid = grid[grid @ outwards > end - _HANDLE_DEPTH_M]
    solid = grid[inside(scene, name, grid)]
    across = np.abs(np.cross(_UP, outwards))
    if not len(solid) or np.ptp(solid @ across) > _WIDEST_HANDLE_M:
        return None
    point = (solid.min(axis=0) + solid.max(axis=0)) / 2.0
    point[2] = float(solid[:, 2].max()) - _HANDLE_HOLD_M
    return np.asarray(point - scene.object_position(name))
