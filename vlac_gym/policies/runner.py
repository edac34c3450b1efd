"""Follows a list of waypoints step by step, closed loop: `ProgramRunner`."""

__all__ = ["ProgramRunner"]

from collections.abc import Sequence
from typing import Literal

import numpy as np

from vlac_gym.envs.scene import PrivilegedScene
from vlac_gym.policies.base import Action
from vlac_gym.policies.waypoints import Waypoint, position_error, rotation_error, servo

_TURN_TOLERANCE_RAD = 0.08
_STALL_M = 0.0008
"""Less motion than this in a control step counts as standing still."""
_STALL_STEPS = 6
_LOST_STEPS = 5
"""Steps without contact of both fingers after which an object counts as lost (contacts flicker)."""

Status = Literal["running", "finished", "failed"]


class ProgramRunner:
    """Executes waypoints in order.

    A waypoint is over when it was reached, or the hand can't move on (it pushes against something), and its
    waiting time has passed; or after its `max_steps`. The program fails when an object that must be held is
    not: at the end of the grasp, or for several steps in a row later.

    Args:
        program: At least one waypoint.
    """

    def __init__(self, program: Sequence[Waypoint], scene: PrivilegedScene) -> None:
        self.program = tuple(program)
        self.index = 0
        self.status: Status = "running"
        self._lost = 0
        self._begin(scene)

    @property
    def waypoint(self) -> Waypoint:
        """The present waypoint, or the last one when the program is over."""
        return self.program[min(self.index, len(self.program) - 1)]

    def share_done(self, scene: PrivilegedScene) -> float:
        """Share of the present waypoint's way that lies behind, [0, 1]; 1 if there is none."""
        if self._distance < 1e-9:
            return 1.0
        left = float(np.linalg.norm(position_error(self.waypoint, scene, self._start)))
        return min(1.0, max(0.0, 1.0 - left / self._distance))

    def advance(self, scene: PrivilegedScene) -> Status:
        """Looks at the scene once per step and moves on to the next waypoint if the present one is over."""
        if self.status != "running":
            return self.status
        waypoint = self.waypoint
        holds = waypoint.needs_grasp_of is None or scene.is_grasped(waypoint.needs_grasp_of)
        self._lost = 0 if holds else self._lost + 1
        if waypoint.stage != "grasp" and self._lost >= _LOST_STEPS:
            self.status = "failed"
        elif self._is_over(waypoint, scene, holds):
            if waypoint.stage == "grasp" and not holds:
                self.status = "failed"
            elif self.index + 1 == len(self.program):
                self.status = "finished"
            else:
                self.index += 1
                self._begin(scene)
        return self.status

    def action(self, scene: PrivilegedScene) -> Action:
        """The action towards the present waypoint: float32 (7,)."""
        self._steps += 1
        return servo(self.waypoint, scene, self._start)

    def _begin(self, scene: PrivilegedScene) -> None:
        self._start = scene.end_effector_position
        self._last_tip = self._start
        self._distance = float(np.linalg.norm(position_error(self.waypoint, scene, self._start)))
        self._steps = 0
        self._arrived = False
        self._waited = 0
        self._still = 0
        self._lost = 0

    def _is_over(self, waypoint: Waypoint, scene: PrivilegedScene, holds: bool) -> bool:
        if self._steps >= waypoint.max_steps:
            return True
        tip = scene.end_effector_position
        still = self._steps > 0 and float(np.linalg.norm(tip - self._last_tip)) < _STALL_M
        self._still = self._still + 1 if still else 0
        self._last_tip = tip
        if not self._arrived:
            near = np.linalg.norm(position_error(waypoint, scene, self._start)) <= waypoint.tolerance_m
            turned = np.linalg.norm(rotation_error(waypoint, scene)) <= _TURN_TOLERANCE_RAD
            self._arrived = bool(near and turned) or self._still >= _STALL_STEPS
        elif holds:
            self._waited += 1
        return self._arrived and holds and self._waited >= waypoint.hold_steps
