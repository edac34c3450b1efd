"""A critic that answers from a list and counts its calls, for tests: `ScriptedCritic`."""

__all__ = ["CriticCall", "ScriptedCritic"]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vlac_gym.critic.base import BaseCritic, check_frames, check_same_length, check_tasks
from vlac_gym.errors import ConfigError, CriticResponseError
from vlac_gym.types import CriticInfo, FloatArray, Frame

Script = Iterable[float | Exception]


@dataclass(frozen=True)
class CriticCall:
    """One call: the method's name, and how many frames or pairs it asked about."""

    method: Literal["success_prob", "progress", "value"]
    count: int


class ScriptedCritic(BaseCritic):
    """Answers from lists, one entry per frame or pair; an exception in a list is raised instead.

    The answers are not checked: NaN and out-of-range numbers pass, since tests need critics that are wrong.

    Args:
        success_probs: Answers of `success_prob`, used up in order.
        progresses: Answers of `progress`, used up in order.
        values: Value lists, one per call of `value`.
        repeat: Start a used-up list again instead of raising.

    Attributes:
        calls: Every call so far, in order.

    Example:
        >>> critic = ScriptedCritic(success_probs=[0.25, 0.5])
        >>> frame = np.zeros((2, 2, 3), np.uint8)
        >>> critic.success_prob([frame, frame], ["stack", "stack"]).tolist()
        [0.25, 0.5]
        >>> critic.calls
        [CriticCall(method='success_prob', count=2)]
    """

    takes_device_frames = True

    def __init__(
        self,
        success_probs: Script = (),
        progresses: Script = (),
        values: Iterable[Sequence[float] | Exception] = (),
        *,
        repeat: bool = False,
    ) -> None:
        self.calls: list[CriticCall] = []
        self._scripts: dict[str, list[Any]] = {
            "success_prob": list(success_probs),
            "progress": list(progresses),
            "value": list(values),
        }
        self._used = dict.fromkeys(self._scripts, 0)
        self._repeat = repeat

    @classmethod
    def from_spec(cls, argument: str, **options: Any) -> "ScriptedCritic":
        """Builds `scripted:0.1,0.2,0.95`: those `success_prob`s, repeated; value lists rise evenly to 0.5.

        Raises:
            ConfigError: An entry is not a number, or there is none.
        """
        try:
            probs = [float(item) for item in argument.split(",")]
        except ValueError as e:
            raise ConfigError(f"Expected 'scripted:0.1,0.2,…', got 'scripted:{argument}'.") from e
        return _RampCritic(success_probs=probs, progresses=[0.1], repeat=True, **options)

    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> FloatArray:
        """The next answers of the list, one per frame."""
        check_frames(frames)
        check_tasks(tasks)
        check_same_length(frames=frames, tasks=tasks)
        return self._next_array("success_prob", len(frames))

    def progress(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> FloatArray:
        """The next answers of the list, one per pair."""
        check_same_length(before=before, after=after, tasks=tasks)
        return self._next_array("progress", len(before))

    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        """The next value list, whatever the number of frames."""
        self.calls.append(CriticCall("value", len(frames)))
        answer = self._next("value")
        return np.asarray(answer, dtype=np.float32)

    def describe(self) -> CriticInfo:
        """Names it."""
        return CriticInfo(name="scripted")

    def _next_array(self, method: Literal["success_prob", "progress"], count: int) -> FloatArray:
        self.calls.append(CriticCall(method, count))
        return np.array([self._next(method) for _ in range(count)], dtype=np.float32)

    def _next(self, method: str) -> Any:
        script, used = self._scripts[method], self._used[method]
        if not script or (used >= len(script) and not self._repeat):
            raise CriticResponseError(f"The script has {len(script)} answers of {method}; all are used up.")
        self._used[method] = used + 1
        answer = script[used % len(script)]
        if isinstance(answer, Exception):
            raise answer
        return answer


class _RampCritic(ScriptedCritic):
    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        self.calls.append(CriticCall("value", len(frames)))
        return np.linspace(0.0, 0.5, len(frames), dtype=np.float32)
