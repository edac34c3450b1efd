"""Ways in which an expert's episode is spoilt on purpose: `FAULTS`, `Fault`, `draw_fault`."""

__all__ = ["FAULTS", "Fault", "draw_fault"]

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vlac_gym.envs.scene import Predicate, PrivilegedScene, Vector
from vlac_gym.errors import ConfigError
from vlac_gym.policies.cavities import mouth_of
from vlac_gym.policies.cheats import CHEATS
from vlac_gym.policies.waypoints import Waypoint

FAULTS = {
    "none": "no fault",
    "stop": "stands still for good after 15 to 70 steps",
    "drop": "lets the object go while it is carried, then stands still",
    "beside": "puts the object down 0.13 to 0.18 m away from its target, then stands still",
    "wrong_object": "moves another object to the target, then stands still",
    "hover": "holds the object 0.03 to 0.15 m above its place on the target and never lets go",
    "push": "shoves the object along the table, 70 to 100 % of the way to its target, then stands still",
    "block_view": "holds the empty hand between the target and the agentview camera",
    "empty_hand": "goes through the motions of putting something down, with nothing in the hand",
}
"""Fault -> what happens."""

_STOP_STEPS = (15, 70)
_DROP_SHARES = (0.2, 0.6)
_BESIDE_M = (0.13, 0.18)
_HOVER_M = (0.03, 0.15)


@dataclass(frozen=True, eq=False)
class Fault:
    """What was drawn for one episode.

    Attributes:
        kind: A key of `FAULTS`.
        stop_step: Steps after which the expert stands still, or None.
        drop_share: Share of the way to the target, (0, 1), after which the hand opens, or None.
        place_offset: Shift of the place where the object is put down, m, (3,).
        goal: The goal that the expert pursues.
        hover_m: Height above its place at which the object is held for good, m, or None.
        program: What to do instead of pursuing the goal, or None.
    """

    kind: str
    goal: tuple[Predicate, ...]
    stop_step: int | None = None
    drop_share: float | None = None
    place_offset: Vector = field(default_factory=lambda: np.zeros(3))
    hover_m: float | None = None
    program: tuple[Waypoint, ...] | None = None

    @property
    def ends_with_its_plan(self) -> bool:
        """Whether the expert stands still where the plan ends that moves an object, and plans no more."""
        return self.kind in ("beside", "wrong_object", "hover") or self.program is not None


def draw_fault(kind: str, scene: PrivilegedScene, rng: np.random.Generator) -> Fault:
    """Draws the details of one episode's fault.

    Raises:
        ConfigError: The fault needs a goal that places an object, a place open above, or another object to take.
    """
    if kind in ("none", "stop"):
        step = int(rng.integers(*_STOP_STEPS)) if kind == "stop" else None
        return Fault(kind, scene.goal, stop_step=step)
    placing = [predicate for predicate in scene.goal if predicate.name in ("on", "in")]
    if not placing:
        goal = ", ".join(map(str, scene.goal))
        raise ConfigError(
            f"Expert fault {kind!r} needs a goal that places an object, got {goal}. Use 'stop'."
        )
    if kind == "drop":
        return Fault(kind, scene.goal, drop_share=float(rng.uniform(*_DROP_SHARES)))
    if kind == "beside":
        return Fault(kind, scene.goal, place_offset=_beside(scene, placing[0].args[1], rng))
    if kind == "hover":
        if mouth_of(scene, placing[0]) is not None:
            raise ConfigError(
                f"Expert fault 'hover' needs a place that is open above, got {placing[0]}, which has a roof. Use "
                "'beside'."
            )
        return Fault(kind, scene.goal, hover_m=float(rng.uniform(*_HOVER_M)))
    if kind in CHEATS:
        return Fault(kind, scene.goal, program=CHEATS[kind](scene, placing[0], rng))
    return Fault(kind, _other_goal(scene, placing, rng))


def _beside(scene: PrivilegedScene, target: str, rng: np.random.Generator) -> Vector:
    """A shift from the target that lands on free table: the best of eight drawn directions."""
    distance = rng.uniform(*_BESIDE_M)
    angles = rng.uniform(0.0, 2.0 * math.pi) + np.arange(8) * (math.pi / 4.0)
    shifts = np.stack([np.cos(angles), np.sin(angles), np.zeros(8)], axis=1) * distance
    room = scene.clearance(scene.object_position(target) + shifts)
    shift: Vector = shifts[int(np.argmax(room))]
    return shift


def _other_goal(
    scene: PrivilegedScene, placing: Sequence[Predicate], rng: np.random.Generator
) -> tuple[Predicate, ...]:
    """The goal with an object that it doesn't place instead of the first that it does; of the same kind if there is."""
    predicate = placing[0]
    index = scene.goal.index(predicate)
    target = predicate.args[1]
    right = [p.args[0] for p in placing]
    others = [n for n in scene.objects if n not in (*right, target) and not target.startswith(f"{n}_")]
    if not others:
        names = " and ".join(map(repr, right))
        raise ConfigError(f"Expert fault 'wrong_object' needs another object than {names} in the scene.")
    alike = [name for name in others if scene.category(name) == scene.category(right[0])]
    choice = str(rng.choice(alike or others))
    wrong = Predicate(predicate.name, (choice, target))
    return (*scene.goal[:index], wrong, *scene.goal[index + 1 :])
