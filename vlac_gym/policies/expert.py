"""A scripted expert that sees the simulator's poses: `ExpertPolicy`, `ExpertOptions`."""

__all__ = ["ExpertOptions", "ExpertPolicy"]

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from vlac_gym.envs.scene import PrivilegedScene, Vector
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.policies.base import Action
from vlac_gym.policies.cheats import hover_above
from vlac_gym.policies.faults import FAULTS, Fault, draw_fault
from vlac_gym.policies.grasps import Hold
from vlac_gym.policies.planner import in_order, plan_predicate
from vlac_gym.policies.runner import ProgramRunner
from vlac_gym.policies.waypoints import OPEN
from vlac_gym.specs.options import option_types, read_argument

_STALE_TURN_RAD = 0.15
_STILL = "stop"
"""Stage of an expert that stands still for good."""


@dataclass(frozen=True)
class ExpertOptions:
    """How well the expert acts.

    Attributes:
        noise: Standard deviation of the Gaussian noise added to the three translation actions, in action
            units (1.0 is 0.05 m), >= 0.
        fail: How the episode is spoilt: a key of `vlac_gym.policies.faults.FAULTS`.

    Raises:
        ConfigError: A value is out of range or unknown.
    """

    noise: float = 0.0
    fail: str = "none"

    def __post_init__(self) -> None:
        if not 0.0 <= self.noise <= 10.0:
            raise ConfigError(f"Expected expert noise in [0, 10] action units, got {self.noise}.")
        if self.fail not in FAULTS:
            raise unknown_name("expert fault", self.fail, FAULTS)


class ExpertPolicy:
    """Solves tabletop tasks by closed-loop waypoints on privileged poses.

    It plans one goal condition at a time, follows the plan with a proportional controller, and plans anew when
    an object slips or the plan ended without success. It needs an environment whose `unwrapped` has a `scene`
    (a `vlac_gym.envs.scene.PrivilegedScene`), such as `vlac_gym/Libero-v0`. Observations and `info` are not
    used. Pickling keeps the options; the pickled copy needs a `reset` before it acts.

    Args:
        options: Noise and faults; by default none.
    """

    is_privileged = True
    cameras = ("agentview",)

    def __init__(self, options: ExpertOptions | None = None) -> None:
        self.options = options or ExpertOptions()
        self._scene: PrivilegedScene | None = None

    @classmethod
    def from_spec(cls, argument: str) -> "ExpertPolicy":
        """Builds it from a spec's argument: ``""`` or ``"noise=0.1,fail=drop"``.

        Raises:
            ConfigError: An unknown option or a value that does not fit.
        """
        _, options = read_argument(argument, option_types(ExpertOptions), "expert", has_target=False)
        return cls(ExpertOptions(**options))

    def __reduce__(self) -> tuple[type["ExpertPolicy"], tuple[ExpertOptions]]:
        return type(self), (self.options,)

    def reset(self, env: gym.Env[Any, Any], seed: int | None = None) -> None:
        """Starts an episode in the environment's present state.

        Raises:
            ConfigError: The environment has no privileged scene, or the fault does not fit its goal.
        """
        scene = getattr(env.unwrapped, "scene", None)
        if not isinstance(scene, PrivilegedScene):
            raise ConfigError(
                f"Policy 'expert' needs an environment with a privileged `scene`, got {env.unwrapped}. "
                "Use it with vlac_gym/Libero-v0, or use 'random', 'zero' or 'replay:PATH'."
            )
        self._rng = np.random.default_rng(seed)
        self._fault: Fault = draw_fault(self.options.fail, scene, self._rng)
        self._scene = scene
        self._runner: ProgramRunner | None = None
        self._planned_for: tuple[str, Vector] | None = None
        self._failed_holds: dict[str, list[Hold]] = {}
        self._steps = 0
        self._stopped = False
        self._gripper = OPEN

    @property
    def stage(self) -> str:
        """Name of the present stage: ``"reach"``, ``"grasp"``, ``"carry"``, …, ``"stop"``, ``"idle"``."""
        if self._scene is None or (self._runner is None and not self._stopped):
            return "idle"
        return _STILL if self._stopped or self._runner is None else self._runner.waypoint.stage

    @property
    def stage_index(self) -> int:
        """How many waypoints of the present plan are over."""
        return 0 if self._scene is None or self._runner is None else self._runner.index

    def act(self, obs: Any, info: Mapping[str, Any]) -> Action:
        """The next action: float32 (7,) in [-1, 1].

        Raises:
            ConfigError: `reset` was not called, or the goal has a condition without a skill.
        """
        if self._scene is None:
            raise ConfigError("Policy 'expert' was asked to act before reset(env, seed).")
        self._think(self._scene)
        self._steps += 1
        if self._stopped or self._runner is None:
            action = np.zeros(7, np.float32)
            action[6] = self._gripper
            return action
        action = self._runner.action(self._scene)
        self._gripper = float(action[6])
        if self.options.noise > 0.0:
            action[:3] += self._rng.normal(0.0, self.options.noise, 3).astype(np.float32)
        return np.clip(action, -1.0, 1.0)

    def _think(self, scene: PrivilegedScene) -> None:
        """Moves on in the plan, plans anew, or stops."""
        if self._stopped:
            return
        if self._runner is not None:
            status = self._runner.advance(scene)
            if status == "finished" and self._is_spoilt(scene, self._runner):
                self._stopped = True
            elif status != "running" or self._is_stale(scene):
                self._remember_failure(self._runner)
                self._runner = None
        if self._runner is None:
            self._plan(scene)
        self._apply_fault(scene)

    def _is_spoilt(self, scene: PrivilegedScene, runner: ProgramRunner) -> bool:
        """Whether a plan that is over was the one that the fault spoils: its own, or the first that moves an object."""
        moves = any(waypoint.needs_grasp_of in scene.objects for waypoint in runner.program)
        return self._fault.ends_with_its_plan and (moves or self._fault.program is not None)

    def _remember_failure(self, runner: ProgramRunner) -> None:
        """Keeps a hold that the hand never got: next time it tries another."""
        name = runner.waypoint.needs_grasp_of
        if runner.status != "failed" or runner.waypoint.stage != "grasp" or name is None:
            return
        (descend,) = (waypoint for waypoint in runner.program if waypoint.stage == "descend")
        assert descend.rotation is not None
        self._failed_holds.setdefault(name, []).append(Hold(descend.offset, descend.rotation))

    def _is_stale(self, scene: PrivilegedScene) -> bool:
        """True if the object to be grasped has turned since the grasp was chosen."""
        if self._planned_for is None or self.stage not in ("reach", "descend"):
            return False
        name, quaternion = self._planned_for
        return abs(float(scene.object_quaternion(name) @ quaternion)) < math.cos(_STALE_TURN_RAD / 2.0)

    def _plan(self, scene: PrivilegedScene) -> None:
        self._planned_for = None
        if self._fault.program is not None:
            self._runner = ProgramRunner(self._fault.program, scene)
            return
        for predicate in in_order(scene, self._fault.goal):
            if not scene.predicate_holds(predicate):
                offset = self._fault.place_offset
                if predicate.name in ("on", "in"):
                    moved = predicate.args[0]
                    self._planned_for = (moved, scene.object_quaternion(moved))
                tried = self._failed_holds.get(predicate.args[0], ())
                plan = plan_predicate(scene, predicate, place_offset=offset, tried=tried)
                if self._fault.hover_m is not None:
                    plan = hover_above(plan, self._fault.hover_m)
                self._runner = ProgramRunner(plan, scene)
                return

    def _apply_fault(self, scene: PrivilegedScene) -> None:
        if self._fault.stop_step is not None and self._steps >= self._fault.stop_step:
            self._stopped = True
        if self._fault.drop_share is not None and self._runner is not None:
            carrying = self._runner.waypoint.stage == "carry"
            if carrying and self._runner.share_done(scene) >= self._fault.drop_share:
                self._stopped = True
                self._gripper = OPEN
