"""Moving jointed things: `pull_drawer` (open), `push_shut` (drawers and doors), `turn_knob` (on and off)."""

__all__ = ["pull_drawer", "push_shut", "turn_knob"]

import math
from dataclasses import replace

import numpy as np

from vlac_gym.envs.scene import Predicate, PrivilegedScene, Vector
from vlac_gym.errors import ConfigError
from vlac_gym.policies.waypoints import (
    CLOSE,
    OPEN,
    OPEN_STEPS,
    Waypoint,
    close_hand,
    hand_rotation,
    rotation_about,
)

_HAND_TILT_RAD = math.radians(80)
"""Nearly level: the handles of a cabinet are stacked, so the hand comes from the front."""
_STANDOFF_M = 0.10
_OVERSHOOT_M = 0.03
_HANDLE_DEPTH_M = 0.004

_ABOVE_KNOB_M = 0.08
_KNOB_OVERSHOOT_RAD = 0.35
_KNOB_STEP_RAD = 0.3

_PUSH_ROOM_M = 0.08
"""From the bar to where the closed fingers come down in front of it."""
_PUSH_LEAN_RAD = 0.6
"""So far the hand leans back, lest it meets the bars above the one that the fingers push."""
_PUSH_STEP_RAD = 0.2
_DOOR_REACH_M = 0.05
_DOOR_TOP_M = 0.04
_OVER_FIXTURE_M = 0.06
_UPRIGHT_AXIS = 0.7


def pull_drawer(scene: PrivilegedScene, predicate: Predicate) -> tuple[Waypoint, ...]:
    """Takes a drawer's bar from the front and pulls until the open predicate holds.

    Raises:
        ConfigError: It is a door, which turns.
    """
    name = predicate.args[0]
    if not _slides(scene, name):
        raise ConfigError(
            f"Expected a drawer to pull for the goal {predicate}, got the door {name!r}, which turns: the expert "
            "pushes doors shut and opens none."
        )
    goal = scene.joint_goal(predicate)
    travel = goal.threshold - scene.joint_position(name) + goal.sign * _OVERSHOOT_M
    slide = scene.joint_axis(name)[1]
    outwards = slide * goal.sign
    rotation = hand_rotation(math.atan2(-outwards[0], outwards[1]), _HAND_TILT_RAD)
    front = outwards * _STANDOFF_M
    tip = scene.end_effector_position
    height = max(float(tip[2]), float(scene.handle_position(name)[2]) + 0.1)
    return (
        Waypoint(
            "reach", "handle", 2.0 * front, anchor=name, height=height, rotation=rotation, tolerance_m=0.03
        ),
        Waypoint("reach", "handle", front, anchor=name, rotation=rotation, tolerance_m=0.015),
        Waypoint(
            "descend",
            "handle",
            -_HANDLE_DEPTH_M * outwards,
            anchor=name,
            rotation=rotation,
            tolerance_m=0.006,
        ),
        close_hand(rotation, scene.owner(name)),
        Waypoint("pull", "tip", slide * travel, rotation=rotation, gripper=CLOSE, tolerance_m=0.005),
        Waypoint("release", "tip", np.zeros(3), rotation=rotation, hold_steps=OPEN_STEPS),
        Waypoint("retreat", "tip", front, rotation=rotation, gripper=OPEN, tolerance_m=0.02),
    )


def push_shut(scene: PrivilegedScene, predicate: Predicate) -> tuple[Waypoint, ...]:
    """Pushes a drawer or a door shut with closed fingers: no hold is needed, and less room in front of it.

    A joint whose axis is level slides (a drawer); one whose axis is upright turns (a door).
    """
    name = predicate.args[0]
    path = _way_shut(scene, predicate)
    back = path[0] - path[1]
    back /= np.linalg.norm(back)
    rotation = _pushing_hand(back) if _slides(scene, name) else hand_rotation()
    top = float(scene.object_bounds(scene.owner(name))[1][2])
    start = path[0] + _PUSH_ROOM_M * back
    over = max(float(scene.end_effector_position[2]), top + _OVER_FIXTURE_M)
    above = Waypoint("reach", "world", start, height=over, rotation=rotation, gripper=CLOSE, tolerance_m=0.03)
    push = replace(above, stage="push", height=None, tolerance_m=0.01, max_steps=40)
    away = path[-2] - path[-1]
    return (
        replace(above, frame="tip", offset=np.zeros(3), rotation=None),
        above,
        replace(above, stage="descend", height=None, tolerance_m=0.015),
        *(replace(push, offset=point) for point in path[1:]),
        replace(push, stage="retreat", frame="tip", offset=_PUSH_ROOM_M * away / np.linalg.norm(away)),
    )


def _slides(scene: PrivilegedScene, name: str) -> bool:
    return abs(float(scene.joint_axis(name)[1][2])) < _UPRIGHT_AXIS


def _way_shut(scene: PrivilegedScene, predicate: Predicate) -> list[Vector]:
    """Where the finger tips go, m, each (3,): from the bar as it is to a little beyond its place when shut."""
    name = predicate.args[0]
    bar, (centre, axis) = scene.handle_position(name), scene.joint_axis(name)
    goal = scene.joint_goal(predicate)
    left = goal.threshold - scene.joint_position(name)
    if _slides(scene, name):
        return [bar, bar + (left + goal.sign * _OVERSHOOT_M) * axis]
    top = float(scene.object_bounds(scene.owner(name))[1][2])
    # High up, where the hand is above the door and only the fingers touch it.
    bar[2] = max(bar[2], min(bar[2] + _DOOR_REACH_M, top - _DOOR_TOP_M))
    steps = max(1, math.ceil(abs(left) / _PUSH_STEP_RAD))
    return [centre + rotation_about(axis, left * k / steps) @ (bar - centre) for k in range(steps + 1)]


def _pushing_hand(back: Vector) -> Vector:
    """Hand whose fingers close across the push and that leans towards `back`, the way that it came: (3, 3)."""
    yaw = math.atan2(back[1], back[0])
    # A half turn more changes nothing: in (-90, 90] degrees.
    yaw = math.pi / 2.0 - (math.pi / 2.0 - yaw) % math.pi
    lean = rotation_about(np.cross(np.array([0.0, 0.0, 1.0]), back), _PUSH_LEAN_RAD)
    rotation: Vector = lean @ hand_rotation(yaw)
    return rotation


def turn_knob(scene: PrivilegedScene, predicate: Predicate) -> tuple[Waypoint, ...]:
    """Takes a knob's ridge from above and turns the hand with it about the knob's axis."""
    name = predicate.args[0]
    goal = scene.joint_goal(predicate)
    turn = goal.threshold - scene.joint_position(name) + goal.sign * _KNOB_OVERSHOOT_RAD
    centre, axis = scene.joint_axis(name)
    ridge = scene.handle_position(name)
    yaw = 0.0
    rotation = hand_rotation(yaw)
    above = np.array([0.0, 0.0, _ABOVE_KNOB_M])
    steps = math.ceil(abs(turn) / _KNOB_STEP_RAD)
    turned = []
    for k in range(1, steps + 1):
        by = rotation_about(axis, turn * k / steps)
        point: Vector = centre + by @ (ridge - centre)
        turned.append(
            Waypoint(
                "turn", "world", point, rotation=by @ rotation, gripper=CLOSE, tolerance_m=0.01, max_steps=25
            )
        )
    return (
        Waypoint("reach", "handle", above, name, rotation=rotation, tolerance_m=0.01, hold_steps=4),
        # Slowly: so close to its base the arm swings aside when it hurries down.
        Waypoint("descend", "handle", np.zeros(3), name, rotation=rotation, tolerance_m=0.008, speed=0.4),
        # A knob can't give way to the fingers, so one of them may not touch it: the turn works all the same.
        close_hand(rotation, None),
        *turned,
        Waypoint("release", "tip", np.zeros(3), hold_steps=OPEN_STEPS),
        Waypoint("retreat", "tip", above, gripper=OPEN, tolerance_m=0.02),
    )
