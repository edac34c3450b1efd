"""How far a scene is from its BDDL goal: `goal_progress`, and `predicate_progress` for one condition.

A stateless potential over privileged poses: the same state gives the same number, whatever happened before.
It is meant for oracles, plots and audits, never for a policy under training.

One placement condition (``on``/``in`` an object or region) rises along reach, grasp, lift, carry, lower, let go:

- object not held: ``0.30 * reach + 0.05 * reach^4 * closing``, where ``reach = 1 - tanh(d / 0.25 m)`` for
  the distance d from the finger tips to the object's box, and ``closing`` runs from 0 (hand open) to 1;
- object held (`PrivilegedScene.is_held`), or let go above its target:
  ``0.40 + 0.55 * (1 - tanh(path / 0.5 m))``, where ``path`` is what is left of lifting the object above the
  target's rim, carrying it across and lowering it.

A target on the table may be reached by pushing: then ``0.30 * reach + 0.65 * (1 - tanh(d / 0.3 m))`` with
the horizontal distance d from object to target. A target inside a closed drawer counts the opening first.
A joint condition (``open``, ``close``, ``turnon``, ``turnoff``) gives ``0.30 * reach`` for the way to the
handle and ``0.65`` for the share of the joint's way that is done.

A condition that the simulator says holds is worth 1; until the whole goal holds, the mean over the
conditions is kept at or below 0.99. The shape (reach, grasp, then place, each through a tanh) follows the
staged rewards of robosuite's manipulation tasks; the constants are ours.
"""

__all__ = ["goal_progress", "predicate_progress"]

import math

import numpy as np

from vlac_gym.envs.scene import JointGoal, Predicate, PrivilegedScene, Vector
from vlac_gym.errors import unknown_name

_REACH_SHARE = 0.30
_CLOSING_SHARE = 0.05
_HELD_BASE = 0.40
_REST_SHARE = 0.55
_JOINT_SHARE = 0.65
_OPENING_SHARE = 0.35
_MOST_BEFORE_SUCCESS = 0.99

_REACH_M = 0.25
_PATH_M = 0.5
_PUSH_M = 0.3
_RIM_CLEARANCE_M = 0.05
_OPEN_HAND_M = 0.08

_OPPOSITE = {"open": "close", "close": "open", "turnon": "turnoff", "turnoff": "turnon"}
_PLACEMENTS = ("on", "in")


def goal_progress(scene: PrivilegedScene) -> float:
    """Progress of the whole goal: the mean over its conditions.

    Returns:
        A number in [0, 1]; 1.0 if and only if the simulator says that the task is solved.

    Raises:
        ConfigError: The goal uses a predicate without a progress measure.
    """
    if scene.is_success():
        return 1.0
    parts = [predicate_progress(scene, predicate) for predicate in scene.goal]
    return min(_MOST_BEFORE_SUCCESS, sum(parts) / len(parts)) if parts else 0.0


def predicate_progress(scene: PrivilegedScene, predicate: Predicate) -> float:
    """Progress of one condition, in [0, 1]; 1.0 if it holds.

    Raises:
        ConfigError: No progress measure for this predicate.
    """
    if predicate.name not in _PLACEMENTS and predicate.name not in _OPPOSITE:
        raise unknown_name("goal predicate", predicate.name, [*_PLACEMENTS, *_OPPOSITE])
    if scene.predicate_holds(predicate):
        return 1.0
    if predicate.name in _OPPOSITE:
        return _joint_progress(scene, predicate)
    moved, target = predicate.args
    if scene.category(target) == "table":
        return _push_progress(scene, moved, target)
    if predicate.name == "in" and scene.is_jointed(target):
        opening = Predicate("open", (target,))
        share = _joint_share(scene, opening)
        way_open = 1.0 if share == 1.0 else _joint_progress(scene, opening)
        return _OPENING_SHARE * way_open + (1.0 - _OPENING_SHARE) * share * _place_progress(scene, predicate)
    return _place_progress(scene, predicate)


def _place_progress(scene: PrivilegedScene, predicate: Predicate) -> float:
    moved, target = predicate.args
    over_target = _is_over(scene, moved, target)
    if scene.is_held(moved) or over_target:
        return _HELD_BASE + _REST_SHARE * _nearness(_path_left(scene, predicate, over_target), _PATH_M)
    reach = _reach_box(scene, moved)
    closing = 1.0 - min(1.0, scene.gripper_opening / _OPEN_HAND_M)
    return _REACH_SHARE * reach + _CLOSING_SHARE * reach**4 * closing


def _push_progress(scene: PrivilegedScene, moved: str, target: str) -> float:
    across = math.dist(scene.object_position(moved)[:2], scene.object_position(target)[:2])
    return _REACH_SHARE * _reach_box(scene, moved) + _JOINT_SHARE * _nearness(across, _PUSH_M)


def _joint_progress(scene: PrivilegedScene, predicate: Predicate) -> float:
    handle = scene.handle_position(predicate.args[0])
    reach = _nearness(math.dist(scene.end_effector_position, handle), _REACH_M)
    return _REACH_SHARE * reach + _JOINT_SHARE * _joint_share(scene, predicate)


def _joint_share(scene: PrivilegedScene, predicate: Predicate) -> float:
    """Share in [0, 1] of the way from the opposite predicate's threshold to this one's."""
    goal: JointGoal = scene.joint_goal(predicate)
    start = scene.joint_goal(Predicate(_OPPOSITE[predicate.name], predicate.args)).threshold
    done = (scene.joint_position(predicate.args[0]) - start) / (goal.threshold - start)
    return min(1.0, max(0.0, done))


def _path_left(scene: PrivilegedScene, predicate: Predicate, over_target: bool) -> float:
    """Metres left to lift, carry and lower: up to the rim's clearance, across, down to the target.

    From above the clearance the way leads straight to the point above the target, so that an object lifted over an
    obstacle loses little.
    """
    moved, target = predicate.args
    position, goal = scene.object_position(moved), scene.object_position(target)
    bottom = float(scene.object_bounds(moved)[0][2])
    rim = float(scene.object_bounds(target)[1][2])
    base = float(goal[2]) if predicate.name == "in" else rim
    clear = rim + _RIM_CLEARANCE_M
    across = math.dist(position[:2], goal[:2])
    if bottom >= clear:
        return math.hypot(across, bottom - clear) + clear - base
    if over_target:
        return across + max(0.0, bottom - base)
    return clear - bottom + across + clear - base


def _is_over(scene: PrivilegedScene, moved: str, target: str) -> bool:
    """True if the object's centre is above the inner half of the target's box (it need not touch)."""
    low, high = scene.object_bounds(target)
    box_low, box_high = scene.object_bounds(moved)
    centre = (box_low + box_high) / 2.0
    reach = (high - low)[:2] / 4.0
    inside = np.all(np.abs(centre[:2] - ((low + high) / 2.0)[:2]) <= reach)
    return bool(inside and centre[2] >= low[2])


def _reach_box(scene: PrivilegedScene, name: str) -> float:
    low, high = scene.object_bounds(name)
    tip = scene.end_effector_position
    nearest: Vector = np.clip(tip, low, high)
    return _nearness(math.dist(tip, nearest), _REACH_M)


def _nearness(distance_m: float, scale_m: float) -> float:
    """1 at distance 0, falling to 0 far away, without a kink."""
    return 1.0 - math.tanh(distance_m / scale_m)
