"""From a BDDL goal to waypoints: `plan_predicate`, and which condition comes when: `in_order`.

One small planner covers the tabletop tasks: picking and placing on or in something, opening and closing
drawers, closing doors, turning knobs, and moving objects on the table. Each builder returns the waypoints of one skill.
"""

__all__ = ["in_order", "plan_predicate"]

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vlac_gym.envs.scene import Predicate, PrivilegedScene, Vector
from vlac_gym.errors import unknown_name
from vlac_gym.policies.cavities import mouth_of, slide_in
from vlac_gym.policies.grasps import Grasp, Hold, choose_grasp
from vlac_gym.policies.mechanisms import pull_drawer, push_shut, turn_knob
from vlac_gym.policies.overhangs import is_roofed, way_out
from vlac_gym.policies.solids import inside
from vlac_gym.policies.waypoints import CLOSE, OPEN, OPEN_STEPS, Waypoint, close_hand

_HERE = np.zeros(3)
_APPROACH_M = 0.05
_TALL_M = 0.09
_TRAVEL_CLEARANCE_M = 0.04
_CORRIDOR_M = 0.09
_SLIP_HEIGHT_M = 0.025
_RETREAT_M = 0.08
_LEAST_LEAN, _MOST_LEAN = 0.2, 0.95
"""Cosines between which a surface counts as leaning."""
_UP_THE_NORMAL_M = 0.045
_SURFACE_HEIGHTS_M = np.arange(0.0, 0.05, 0.001)
_ROW_GAP_M = 0.01
_DRAWER_SHARES = np.linspace(0.0, 1.0, 5)
_DRAWER_HEIGHTS_M = (0.0, 0.03, 0.06, 0.09, 0.12)
_DRAWER_ROOM_M = 0.01
_NARROW_TOLERANCE_M = 0.004


def in_order(scene: PrivilegedScene, goal: Sequence[Predicate]) -> tuple[Predicate, ...]:
    """The goal's conditions in the order in which to reach them: what is filled is closed after that."""
    filled = {name for p in goal if p.name == "in" for name in (p.args[1], scene.owner(p.args[1]))}
    return tuple(sorted(goal, key=lambda p: p.name == "close" and p.args[0] in filled))


def plan_predicate(
    scene: PrivilegedScene,
    predicate: Predicate,
    *,
    place_offset: Vector | None = None,
    tried: Sequence[Hold] = (),
) -> tuple[Waypoint, ...]:
    """Waypoints towards one condition from the scene's present state.

    One plan may be a first step only: opening a drawer comes before putting something into it, and whoever
    follows plans asks again at the end of each.

    Args:
        scene: The scene as it is now.
        predicate: Condition to reach.
        place_offset: Shift of the place where an object is put down, from above, m, (3,).
        tried: Holds of the object that failed.

    Raises:
        ConfigError: No skill for this predicate.
    """
    shift = _HERE if place_offset is None else place_offset
    if predicate.name in ("on", "in"):
        moved, target = predicate.args
        opening = Predicate("open", (target,))
        if predicate.name == "in" and scene.is_jointed(target) and not scene.predicate_holds(opening):
            return pull_drawer(scene, opening)
        mouth = None if shift.any() else mouth_of(scene, predicate)
        if mouth is not None and (sliding := slide_in(scene, moved, mouth)) is not None:
            return sliding
        grasp = choose_grasp(scene, moved, tried)
        return _pick(scene, moved, grasp) + _place(scene, predicate, grasp, shift)
    if predicate.name == "open":
        return pull_drawer(scene, predicate)
    if predicate.name == "close":
        return push_shut(scene, predicate)
    if predicate.name in ("turnon", "turnoff"):
        return turn_knob(scene, predicate)
    raise unknown_name("goal predicate with a skill", predicate.name, ("on", "in", "open", "close", "turnon"))


def _pick(scene: PrivilegedScene, name: str, grasp: Grasp) -> tuple[Waypoint, ...]:
    tip = scene.end_effector_position
    point = scene.object_position(name) + grasp.offset
    above = _travel_height(scene, tip, point, ignore=())
    near = min(above, float(scene.object_bounds(name)[1][2]) + _APPROACH_M)
    ahead = grasp.rotation[:, 2]
    roofed = is_roofed(scene, name)
    before = grasp.offset - ahead * ((near - point[2]) / max(0.5, -ahead[2])) if roofed else grasp.offset
    turn = grasp.rotation
    # Slowly along tall things and below others: a hand that hurries sways and knocks bottles over.
    speed = 0.4 if roofed or near - point[2] > _TALL_M else 1.0
    return (
        Waypoint("reach", "tip", _HERE, height=max(above, tip[2]), rotation=turn, tolerance_m=0.02),
        Waypoint("reach", "object", before, name, height=above, rotation=turn, tolerance_m=0.03),
        Waypoint("reach", "object", before, name, height=near, rotation=turn, tolerance_m=0.01),
        Waypoint("descend", "object", grasp.offset, name, rotation=turn, tolerance_m=0.008, speed=speed),
        close_hand(turn, name),
    )


def _place(scene: PrivilegedScene, predicate: Predicate, grasp: Grasp, shift: Vector) -> tuple[Waypoint, ...]:
    moved, target = predicate.args
    lean, out = _lean_shift(scene, predicate), np.zeros(3)
    if shift.any():  # beside the place, where nothing else has to be minded
        shift = shift + lean
    else:
        out = _drawer_shift(scene, predicate)
        shift = lean + _shared_shift(scene, predicate) + out
    tolerance = _NARROW_TOLERANCE_M if out.any() else 0.01
    start, goal = scene.object_position(moved), scene.object_position(target) + shift
    height = _travel_height(scene, start, goal, ignore=(moved,))
    low, high = scene.object_bounds(target)
    rest = low[2] + 0.02 if predicate.name == "in" else high[2]
    if predicate.name == "on" and not lean.any():
        rest = max(rest, _solid_top(scene, goal, target))
    held = Waypoint(
        "lift",
        "object",
        _HERE,
        moved,
        height,
        moved,
        grasp.rotation,
        CLOSE,
        tolerance_m=0.02,
        needs_grasp_of=moved,
    )
    carry = replace(
        held, stage="carry", offset=shift, anchor=target, rotation=grasp.upright, tolerance_m=tolerance
    )
    return (
        *_slip_out(scene, moved, held),
        held,
        carry,
        replace(carry, stage="lower", height=rest, tolerance_m=0.008, needs_grasp_of=None),
        Waypoint("release", "tip", _HERE, gripper=OPEN, hold_steps=OPEN_STEPS),
        Waypoint("retreat", "tip", np.array([0.0, 0.0, _RETREAT_M]), gripper=OPEN, tolerance_m=0.02),
    )


def _slip_out(scene: PrivilegedScene, name: str, lift: Waypoint) -> tuple[Waypoint, ...]:
    """From below an overhang: a little up, then sideways, before the object can be lifted."""
    if not is_roofed(scene, name):
        return ()
    up = np.array([0.0, 0.0, _SLIP_HEIGHT_M])
    aside = replace(lift, frame="tip", anchor="", height=None, carried=None, speed=0.6)
    return (replace(aside, offset=up, tolerance_m=0.01), replace(aside, offset=way_out(scene, name)))


def _travel_height(scene: PrivilegedScene, start: Vector, goal: Vector, ignore: tuple[str, ...]) -> float:
    """Height that clears everything between two places."""
    low = np.minimum(start, goal)[:2] - _CORRIDOR_M
    high = np.maximum(start, goal)[:2] + _CORRIDOR_M
    tops = [0.0]
    for name in (*scene.objects, *scene.fixtures):
        if name in ignore:
            continue
        box_low, box_high = scene.object_bounds(name)
        if np.all(box_low[:2] < high) and np.all(box_high[:2] > low):
            tops.append(float(box_high[2]))
    return max(tops) + _TRAVEL_CLEARANCE_M


def _lean_shift(scene: PrivilegedScene, predicate: Predicate) -> Vector:
    """Where on a leaning shelf an upright bottle rests: a little up its normal (LIBERO's wine rack)."""
    w, x, y, z = scene.object_quaternion(predicate.args[1])
    normal = np.array([2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y)])
    if predicate.name != "on" or not _LEAST_LEAN < abs(normal[2]) < _MOST_LEAN:
        return np.zeros(3)
    shift: Vector = np.array([normal[0], normal[1], 0.0]) * (_UP_THE_NORMAL_M * np.sign(normal[2]))
    return shift


def _solid_top(scene: PrivilegedScene, place: Vector, target: str) -> float:
    """Height in m of the fixture at a place of one of its regions, which may lie below its surface (LIBERO's stove).

    Minus infinity without a fixture there.
    """
    fixture = scene.owner(target)
    if fixture not in scene.fixtures:
        return -math.inf
    heights = scene.object_bounds(target)[1][2] + _SURFACE_HEIGHTS_M
    points = np.column_stack([np.tile(place[:2], (len(heights), 1)), heights])
    solid = heights[inside(scene, fixture, points)]
    return float(np.max(solid, initial=-math.inf))


def _shared_shift(scene: PrivilegedScene, predicate: Predicate) -> Vector:
    """Where something goes on what the goal puts several things on: they stand in a row, their long sides together."""
    target = predicate.args[1]
    sharers = [p.args[0] for p in scene.goal if p.name == "on" and p.args[1] == target]
    if predicate.args[0] not in sharers or len(sharers) < 2:
        return np.zeros(3)
    widths = np.max([np.subtract(*scene.object_bounds(name)[::-1])[:2] for name in sharers], axis=0)
    axis = int(np.argmin(widths))
    place = sharers.index(predicate.args[0]) - (len(sharers) - 1) / 2.0
    shift: Vector = np.eye(3)[axis] * (place * (widths[axis] + _ROW_GAP_M))
    return shift


def _drawer_shift(scene: PrivilegedScene, predicate: Predicate) -> Vector:
    """How far out of an open drawer's middle something goes in, lest it meets the front that the drawer came from.

    The least shift, m, (3,), that leaves most room above the place. It stays inside the drawer.
    """
    moved, target = predicate.args
    if predicate.name != "in" or not scene.is_jointed(target):
        return np.zeros(3)
    outwards = scene.joint_axis(target)[1] * scene.joint_goal(Predicate("open", (target,))).sign
    low, high = (bound - scene.object_position(moved) for bound in scene.object_bounds(moved))
    place, (floor, rim) = scene.object_position(target), scene.object_bounds(target)
    spare = max(0.0, float(((rim - floor) - (high - low)) @ np.abs(outwards)) / 2.0)
    xs, ys = (place[k] + np.linspace(low[k], high[k], 7) for k in (0, 1))
    column = np.array([[x, y, rim[2] + z] for x in xs for y in ys for z in _DRAWER_HEIGHTS_M])
    free = [
        np.sum(scene.clearance(column + d * outwards, ignore=(moved,)) > _DRAWER_ROOM_M)
        for d in spare * _DRAWER_SHARES
    ]
    shift: Vector = spare * _DRAWER_SHARES[int(np.argmax(free))] * outwards
    return shift
