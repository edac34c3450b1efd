"""Where an expert wants its hand next, and the action that takes it there: `Waypoint`, `servo`.

The controller is proportional on position and orientation for LIBERO's OSC_POSE actions, in which 1.0 means
0.05 m or 0.5 rad per control step (robosuite's `osc_pose.json`, `output_max`).
"""

__all__ = [
    "CLOSE",
    "OPEN",
    "OPEN_STEPS",
    "Waypoint",
    "close_hand",
    "hand_rotation",
    "position_error",
    "rotation_about",
    "rotation_error",
    "servo",
]

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlac_gym.envs.scene import PrivilegedScene, Vector
from vlac_gym.policies.base import Action

OPEN = -1.0
CLOSE = 1.0
OPEN_STEPS = 6
"""Steps after which an opening hand has let go."""
_CLOSE_STEPS = 30
"""Most steps to wait for both fingers to touch."""
_CLOSING_STEPS = 13
"""Steps in which the empty hand closes."""
_SETTLE_STEPS = 5
"""Steps of contact until the fingers press with full force."""

_METRES_PER_UNIT = 0.05
_RADIANS_PER_UNIT = 0.5
_GAIN = 2.0

Frame = Literal["world", "tip", "object", "handle"]


@dataclass(frozen=True, eq=False)
class Waypoint:
    """One target of the hand.

    Attributes:
        stage: What this is for: ``"reach"``, ``"grasp"``, ``"carry"``, …
        frame: What `offset` is relative to: the world, the finger tips where they were when the waypoint
            began, or the live position of an object, fixture, region or handle called `anchor`.
        offset: m, world axes, (3,).
        anchor: BDDL name for the frames ``"object"`` and ``"handle"``.
        height: Absolute z in m instead of the frame's, if given.
        carried: If given, the target is not for the finger tips but for this object: its origin in x and
            y, its lowest point in z.
        rotation: Wanted orientation of the hand (3, 3), or None to keep what it has.
        gripper: `OPEN` or `CLOSE`.
        tolerance_m: The waypoint is reached within this distance.
        hold_steps: Steps to wait there.
        max_steps: Steps after which it counts as reached anyway.
        speed: Share of the full speed, (0, 1].
        needs_grasp_of: The plan has failed if this object is not held when the waypoint ends.
    """

    stage: str
    frame: Frame
    offset: Vector
    anchor: str = ""
    height: float | None = None
    carried: str | None = None
    rotation: Vector | None = None
    gripper: float = OPEN
    tolerance_m: float = 0.01
    hold_steps: int = 0
    max_steps: int = 80
    speed: float = 1.0
    needs_grasp_of: str | None = None


def close_hand(rotation: Vector, name: str | None) -> Waypoint:
    """Closes the hand where it is, until both fingers press on the object or fixture `name`.

    Without a name it waits as long as closing takes and does not insist on contact.
    """
    return Waypoint(
        "grasp",
        "tip",
        np.zeros(3),
        rotation=rotation,
        gripper=CLOSE,
        hold_steps=_CLOSING_STEPS if name is None else _SETTLE_STEPS,
        max_steps=_CLOSE_STEPS,
        needs_grasp_of=name,
    )


def position_error(waypoint: Waypoint, scene: PrivilegedScene, start: Vector) -> Vector:
    """What is left to move in m, world axes, (3,); `start` is where the tips were when the waypoint began."""
    if waypoint.frame == "world":
        target = np.array(waypoint.offset, dtype=np.float64)
    elif waypoint.frame == "tip":
        target = start + waypoint.offset
    elif waypoint.frame == "object":
        target = scene.object_position(waypoint.anchor) + waypoint.offset
    else:
        target = scene.handle_position(waypoint.anchor) + waypoint.offset
    if waypoint.height is not None:
        target[2] = waypoint.height
    point = scene.end_effector_position
    if waypoint.carried is not None:
        point = scene.object_position(waypoint.carried)
        point[2] = scene.object_bounds(waypoint.carried)[0][2]
    error: Vector = target - point
    return error


def rotation_error(waypoint: Waypoint, scene: PrivilegedScene) -> Vector:
    """What is left to turn: rotation vector in rad, world axes, (3,); zero if the waypoint asks for nothing."""
    if waypoint.rotation is None:
        return np.zeros(3)
    return _rotation_vector(waypoint.rotation @ scene.end_effector_axes.T)


def servo(waypoint: Waypoint, scene: PrivilegedScene, start: Vector) -> Action:
    """The action that moves towards a waypoint: float32 (7,) in [-1, 1]."""
    move = _GAIN * position_error(waypoint, scene, start) / _METRES_PER_UNIT
    # Scaled as a whole: clipping each axis alone would bend the path away from the straight line.
    move *= waypoint.speed / max(1.0, float(np.max(np.abs(move))))
    turn = np.clip(_GAIN * rotation_error(waypoint, scene) / _RADIANS_PER_UNIT, -1.0, 1.0)
    return np.concatenate([move, turn, [waypoint.gripper]]).astype(np.float32)


def hand_rotation(yaw_rad: float = 0.0, tilt_rad: float = 0.0) -> Vector:
    """Orientation of a hand that points down, turned by `yaw_rad` about world z.

    At yaw 0 the fingers close along world y, as in LIBERO's starting pose. The tilt comes first, about world
    x: at +90 degrees the fingers point along -y and close along z.

    Returns:
        Rotation matrix (3, 3), columns as in `PrivilegedScene.end_effector_axes`.
    """
    down = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    c, s = math.cos(tilt_rad), math.sin(tilt_rad)
    tilt = np.array([[1.0, 0.0, 0.0], [0.0, c, s], [0.0, -s, c]])
    c, s = math.cos(yaw_rad), math.sin(yaw_rad)
    yaw = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    rotation: Vector = yaw @ tilt @ down
    return rotation


def rotation_about(axis: Vector, angle_rad: float) -> Vector:
    """Rotation matrix (3, 3) for a turn about an axis of any length (Rodrigues' formula)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rotation: Vector = np.eye(3) + math.sin(angle_rad) * cross + (1.0 - math.cos(angle_rad)) * cross @ cross
    return rotation


def _rotation_vector(matrix: Vector) -> Vector:
    """Axis times angle of a rotation matrix, angle in [0, pi)."""
    cosine = float(np.clip((np.trace(matrix) - 1.0) / 2.0, -1.0, 1.0))
    axis = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    length = float(np.linalg.norm(axis))
    if length < 1e-9:
        return np.zeros(3)
    vector: Vector = axis * (math.acos(cosine) / length)
    return vector
