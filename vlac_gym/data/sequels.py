"""What takes over from the policy, after a success or at one of its stages: `SEQUELS`, `History`, `make_sequel`.

A critic that has never seen a success come undone, or an object put down a hand's breadth beside the goal,
takes both for success. Sequels steer by the robot's own state, the way the arm came; they know no objects.
"""

__all__ = ["SEQUELS", "History", "Sequel", "make_sequel"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.random import Generator

from vlac_gym.errors import unknown_name
from vlac_gym.types import FloatArray

_OPEN, _CLOSED = -1.0, 1.0
_GRIP_STEPS = 8  # 0.4 s at 20 Hz: the fingers close on an object within it
_STEP_M = 0.05  # what an action of 1.0 asks for, m
_GAIN = 2.0
_NEAR_M = 0.006
_STALL_M = 0.0008
_FALL_M = 0.035  # an object let go above its goal lies lower by about this much


@dataclass
class History:
    """The episode so far; grows while a sequel runs.

    Attributes:
        actions: T actions, float32 (7,): 6 pose deltas and the gripper, -1 open, +1 closed.
        states: T + 1 states, float32 (8,); the first three entries are the end effector's position, m.
    """

    actions: list[FloatArray] = field(default_factory=list)
    states: list[FloatArray] = field(default_factory=list)

    @property
    def position(self) -> FloatArray:
        """Where the end effector is, m, (3,)."""
        return self.states[-1][:3]

    @property
    def release_position(self) -> FloatArray:
        """Where the hand last began to open; where it was 25 steps ago if it never did."""
        closed = np.array([action[-1] > 0 for action in self.actions], bool)
        opens = np.flatnonzero(closed[:-1] & ~closed[1:]) + 1
        return self.states[int(opens[-1]) if opens.size else max(0, len(self.actions) - 25)][:3]


Sequel: TypeAlias = Callable[[History, Generator], Iterator[FloatArray]]
"""From the live history to actions, each float32 (7,)."""


def make_sequel(name: str) -> Sequel:
    """Looks a sequel up by name.

    Raises:
        ConfigError: Unknown name.
    """
    if name not in SEQUELS:
        raise unknown_name("sequel", name, SEQUELS)
    return SEQUELS[name]


def hold(history: History, rng: Generator) -> Iterator[FloatArray]:
    """Nothing: the arm stands still."""
    return iter(())


def take_back(history: History, rng: Generator) -> Iterator[FloatArray]:
    """Picks the object up again: to where it fell when the hand opened, close, up, and 0.1 m to a drawn side."""
    place = history.release_position - _up(_FALL_M)
    yield from _go(history, place, _OPEN)
    yield from _repeat(_GRIP_STEPS, _CLOSED)
    yield from _go(history, place + _up(rng.uniform(0.06, 0.15)), _CLOSED)
    yield from _go(history, history.position + 0.1 * _direction(rng), _CLOSED)


def push_away(history: History, rng: Generator) -> Iterator[FloatArray]:
    """Shoves the object: down beside it with closed fingers, then through its place to the other side."""
    place, side = history.release_position - _up(_FALL_M / 2), _direction(rng)
    yield from _go(history, place - 0.14 * side + _up(0.12), _CLOSED)
    yield from _go(history, place - 0.14 * side, _CLOSED)
    yield from _go(history, place + 0.1 * side, _CLOSED)


def put_beside(history: History, rng: Generator) -> Iterator[FloatArray]:
    """A near miss: 0.03 to 0.10 m to a drawn side, down to where it stops, let go, and up.

    Some land within the goal after all: the simulator labels every step, not the recipe.
    """
    yield from _go(history, history.position + rng.uniform(0.03, 0.10) * _direction(rng), _CLOSED)
    yield from _go(history, history.position - _up(0.2), _CLOSED)
    yield from _repeat(_GRIP_STEPS, _OPEN)
    yield from _go(history, history.position + _up(0.08), _OPEN)


SEQUELS: dict[str, Sequel] = {
    "hold": hold,
    "push_away": push_away,
    "put_beside": put_beside,
    "take_back": take_back,
}
"""Name -> actions that follow those of the policy."""


def _go(history: History, target: FloatArray, gripper: float, max_steps: int = 45) -> Iterator[FloatArray]:
    """Straight to a place; over when it is near, or stands still against something."""
    stalled = 0
    for _ in range(max_steps):
        before = history.position.copy()
        error = target - before
        if np.linalg.norm(error) < _NEAR_M or stalled >= 4:
            return
        move = np.clip(_GAIN * error / _STEP_M, -1.0, 1.0)
        yield np.array([*move, 0.0, 0.0, 0.0, gripper], np.float32)
        stalled = stalled + 1 if np.linalg.norm(history.position - before) < _STALL_M else 0


def _repeat(steps: int, gripper: float) -> Iterator[FloatArray]:
    for _ in range(steps):
        yield np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, gripper], np.float32)


def _up(height: float) -> FloatArray:
    return np.array([0.0, 0.0, height], np.float32)


def _direction(rng: Generator) -> FloatArray:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle), 0.0], np.float32)
