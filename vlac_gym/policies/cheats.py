"""Ways to look done without doing the task, as waypoints: `CHEATS`, `hover_above`.

What a policy may find that is paid by a critic's opinion. All of them should fail; where one succeeds after all, as a
push may that ends on the target, the simulator says so.
"""

__all__ = ["CHEATS", "hover_above"]

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from vlac_gym.envs.scene import Predicate, PrivilegedScene
from vlac_gym.policies.waypoints import CLOSE, OPEN, OPEN_STEPS, Waypoint

_HERE = np.zeros(3)
_TRAVEL_M = 0.1
_BEHIND_M = 0.06
_PUSH_HEIGHT_M = 0.02
_PUSH_SHARES = (0.7, 1.0)
_HIDE_M = (0.12, 0.3)
_HOVER_OVER_M = 0.03
_RETREAT_M = 0.08
_CAMERA = "agentview"


def hover_above(plan: Sequence[Waypoint], height_m: float) -> tuple[Waypoint, ...]:
    """A plan that carries its object over the target and never lowers it; a plan that lowers nothing stays as it is.

    Args:
        plan: Of `plan_predicate`.
        height_m: How high the object stays above where it would be let go.
    """
    lowering = next((i for i, waypoint in enumerate(plan) if waypoint.stage == "lower"), None)
    if lowering is None:
        return tuple(plan)
    lower = plan[lowering]
    assert lower.height is not None  # where a carried object comes to lie
    return (*plan[:lowering], replace(lower, stage="hover", height=lower.height + height_m))


def _push(scene: PrivilegedScene, goal: Predicate, rng: Generator) -> tuple[Waypoint, ...]:
    """Shoves the object along the table with closed fingers, 70 to 100 % of the way to the target."""
    moved, target = goal.args
    start, end = scene.object_position(moved), scene.object_position(target)
    way = (end - start) * [1.0, 1.0, 0.0]
    ahead = way / max(float(np.linalg.norm(way)), 1e-6)
    low, high = scene.object_extent(moved, ahead)
    behind = start - ahead * ((high - low) / 2 + _BEHIND_M)
    ground = float(scene.object_bounds(moved)[0][2]) + _PUSH_HEIGHT_M
    above = float(scene.object_bounds(moved)[1][2]) + _TRAVEL_M
    until = start + way * rng.uniform(*_PUSH_SHARES) - ahead * (high - low) / 2
    hand = Waypoint("reach", "world", behind, height=above, gripper=CLOSE, tolerance_m=0.02)
    return (
        replace(hand, frame="tip", offset=_HERE),
        hand,
        replace(hand, stage="descend", height=ground, tolerance_m=0.01),
        replace(hand, stage="push", offset=until, height=ground, speed=0.5),
        replace(hand, stage="retreat", frame="tip", offset=np.array([0.0, 0.0, _RETREAT_M]), height=None),
    )


def _block_view(scene: PrivilegedScene, goal: Predicate, rng: Generator) -> tuple[Waypoint, ...]:
    """Holds the empty hand 0.12 to 0.30 m from the target towards the camera that critics are shown, and stays."""
    end = scene.object_position(goal.args[1])
    sight = scene.camera_position(_CAMERA) - end
    place = end + sight / np.linalg.norm(sight) * rng.uniform(*_HIDE_M)
    return (Waypoint("hide", "world", place, tolerance_m=0.02),)


def _empty_hand(scene: PrivilegedScene, goal: Predicate, rng: Generator) -> tuple[Waypoint, ...]:
    """Goes through the motions of putting something down, with nothing in the hand."""
    target = goal.args[1]
    end, top = scene.object_position(target), float(scene.object_bounds(target)[1][2])
    carry = Waypoint("carry", "world", end, height=top + _TRAVEL_M, gripper=CLOSE, tolerance_m=0.02)
    return (
        replace(carry, frame="tip", offset=_HERE),
        carry,
        replace(carry, stage="lower", height=top + _HOVER_OVER_M),
        Waypoint("release", "tip", _HERE, gripper=OPEN, hold_steps=OPEN_STEPS),
        Waypoint("retreat", "tip", np.array([0.0, 0.0, _RETREAT_M]), tolerance_m=0.02),
    )


CHEATS: dict[str, Callable[[PrivilegedScene, Predicate, Generator], tuple[Waypoint, ...]]] = {
    "block_view": _block_view,
    "empty_hand": _empty_hand,
    "push": _push,
}
"""Fault -> waypoints, from the scene as it is now, a condition that places an object, and the episode's generator."""
