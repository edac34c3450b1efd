"""Moving jointed things: `pull_drawer` (open and close), `turn_knob` (on and off)."""

__all__ = ["pull_drawer", "turn_knob"]

import math

import numpy as np

from vlac_gym.envs.scene import Predicate, PrivilegedScene, Vector
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


def pull_drawer(scene: PrivilegedScene, predicate: Predicate) -> tuple[Waypoint, ...]:
    """Takes a drawer's bar from the front and moves it until the open or close predicate holds."""
    name = predicate.args[0]
    goal = scene.joint_goal(predicate)
    travel = goal.threshold - scene.joint_position(name) + goal.sign * _OVERSHOOT_M
    slide = scene.joint_axis(name)[1]
    outwards = slide * scene.joint_goal(Predicate("open", (name,))).sign
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
