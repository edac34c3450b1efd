"""What takes over from the policy, after a success or at one of its stages: `SEQUELS`, `make_sequel`.

A critic that has never seen a success come undone, or an object put down a hand's breadth beside the goal,
takes both for success.
"""

__all__ = ["SEQUELS", "Sequel", "make_sequel"]

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.random import Generator

from vlac_gym.errors import unknown_name
from vlac_gym.types import FloatArray

Sequel: TypeAlias = Callable[[Sequence[FloatArray], Generator], Iterator[FloatArray]]
"""From the actions so far (float32 (7,): 6 pose deltas and the gripper, -1 open, +1 closed) to more of them."""

_OPEN, _CLOSED = -1.0, 1.0
_GRIP_STEPS = 8  # 0.4 s at 20 Hz: the fingers close on an object within it
_LIFT_STEPS = 18
_PUSH_STEPS = 16


def make_sequel(name: str) -> Sequel:
    """Looks a sequel up by name.

    Raises:
        ConfigError: Unknown name.
    """
    if name not in SEQUELS:
        raise unknown_name("sequel", name, SEQUELS)
    return SEQUELS[name]


def hold(actions: Sequence[FloatArray], rng: Generator) -> Iterator[FloatArray]:
    """Nothing: the arm stands still."""
    return iter(())


def take_back(actions: Sequence[FloatArray], rng: Generator) -> Iterator[FloatArray]:
    """Picks the object up again: the way from the release in reverse, the gripper closed, and up.

    A pose delta and its negative cancel nearly, so replaying the retreat backwards with the signs turned
    brings the open gripper back around the object that it let go.
    """
    release = _last_release(actions)
    yield from _reversed(actions[release:], _OPEN)
    yield from _repeat(_GRIP_STEPS, (0.0, 0.0, 0.0), _CLOSED)
    yield from _reversed(actions[max(0, release - _LIFT_STEPS) : release], _CLOSED)
    yield from _repeat(_LIFT_STEPS // 2, (*_direction(rng), 0.4), _CLOSED)


def push_away(actions: Sequence[FloatArray], rng: Generator) -> Iterator[FloatArray]:
    """Shoves the object: back to it with the gripper closed, then hard sideways in a drawn direction."""
    release = _last_release(actions)
    yield from _repeat(_GRIP_STEPS // 2, (0.0, 0.0, 0.0), _CLOSED)
    yield from _reversed(actions[release:], _CLOSED)
    yield from _repeat(_PUSH_STEPS, (*_direction(rng), -0.1), _CLOSED)


def put_beside(actions: Sequence[FloatArray], rng: Generator) -> Iterator[FloatArray]:
    """A near miss: sideways for 2 to 9 steps in a drawn direction, down, and let go.

    Some land within the goal after all: the simulator labels every step, not the recipe.
    """
    x, y = _direction(rng)
    yield from _repeat(int(rng.integers(2, 10)), (x, y, 0.0), _CLOSED)
    yield from _repeat(16, (0.0, 0.0, -0.5), _CLOSED)
    yield from _repeat(_GRIP_STEPS, (0.0, 0.0, 0.0), _OPEN)
    yield from _repeat(8, (0.0, 0.0, 1.0), _OPEN)


SEQUELS: dict[str, Sequel] = {
    "hold": hold,
    "push_away": push_away,
    "put_beside": put_beside,
    "take_back": take_back,
}
"""Name -> actions that follow those of the policy."""


def _last_release(actions: Sequence[FloatArray]) -> int:
    """Index of the last action that opens a closed gripper; 25 actions before the end if there is none."""
    closed = np.array([action[-1] > 0 for action in actions], bool)
    opens = np.flatnonzero(closed[:-1] & ~closed[1:]) + 1
    return int(opens[-1]) if opens.size else max(0, len(actions) - 25)


def _reversed(actions: Sequence[FloatArray], gripper: float) -> Iterator[FloatArray]:
    for action in reversed(actions):
        back = -np.asarray(action, np.float32)
        back[-1] = gripper
        yield back


def _repeat(steps: int, move: tuple[float, float, float], gripper: float) -> Iterator[FloatArray]:
    for _ in range(steps):
        yield np.array([*move, 0.0, 0.0, 0.0, gripper], np.float32)


def _direction(rng: Generator) -> tuple[float, float]:
    angle = rng.uniform(0, 2 * np.pi)
    return float(np.cos(angle)), float(np.sin(angle))
