"""What a vector env asks of the env in one of its slots, and what comes back. Small and picklable.

Commands: `ResetCommand`, `StepCommand`, `CallCommand`. Replies: `ResetReply`, `StepReply`, `CallReply`, `Lost`,
`Failure`. Observations are in neither: they go through `vlac_gym.vector.observations`.
"""

__all__ = [
    "CallCommand",
    "CallReply",
    "Failure",
    "Lost",
    "Command",
    "Reply",
    "ResetCommand",
    "ResetReply",
    "StepCommand",
    "StepReply",
]

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym import errors


@dataclass(frozen=True)
class ResetCommand:
    """Start an episode: `env.reset(seed=seed, options=options)`; the observation is written."""

    seed: int | None = None
    options: dict[str, Any] | None = None


@dataclass(frozen=True)
class StepCommand:
    """Run env steps without looking, then look once.

    Attributes:
        actions: One per env step; none means only to look.
        key: Refresh only this image of a Dict observation; None refreshes the whole observation. Whoever
            stops early refreshes the whole.
        stops_at_terminated: Stop after a step that the env calls terminated.
        stops_at_truncated: Stop after a step that the env calls truncated.
    """

    actions: Sequence[Any]
    key: str | None = None
    stops_at_terminated: bool = True
    stops_at_truncated: bool = True


@dataclass(frozen=True)
class CallCommand:
    """Call a method of the env, or read an attribute."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


Command = ResetCommand | StepCommand | CallCommand


@dataclass(frozen=True)
class ResetReply:
    """An episode has begun.

    Attributes:
        info: The env's.
        episode_enders: See `vlac_gym.stepping.inner_wrappers`; of the env in the slot.
    """

    info: dict[str, Any]
    episode_enders: tuple[str, ...] = ()


@dataclass(frozen=True)
class StepReply:
    """Env steps were executed.

    Attributes:
        rewards: float64 (k,), of each executed step.
        successes: The simulator's verdict after each executed step; None where the env gives none.
        terminated: Of the last executed step.
        truncated: Of the last executed step.
        info: Of the last executed step; empty if there was none.
    """

    rewards: NDArray[np.float64]
    successes: tuple[bool | None, ...]
    terminated: bool
    truncated: bool
    info: dict[str, Any]


@dataclass(frozen=True)
class CallReply:
    """What the call returned, or the attribute's value."""

    result: Any


@dataclass(frozen=True)
class Lost:
    """The episode is gone with its worker or its simulator; it neither succeeded nor failed."""

    reason: str


@dataclass(frozen=True)
class Failure:
    """An exception in a slot, in a form that travels."""

    kind: str
    message: str
    trace: str

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """Takes down an exception that is being handled."""
        return cls(type(error).__name__, str(error), traceback.format_exc())

    def exception(self, index: int) -> errors.VlacGymError:
        """The exception to raise: of the same class if it is one of ours, else `SimulatorError` with the trace."""
        known = getattr(errors, self.kind, None)
        if isinstance(known, type) and issubclass(known, errors.VlacGymError):
            return known(f"Env {index}: {self.message}")
        return errors.SimulatorError(f"Env {index} raised {self.kind}: {self.message}\n{self.trace}")


Reply = ResetReply | StepReply | CallReply | Lost | Failure
