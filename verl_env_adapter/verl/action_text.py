"""Robot actions as text for vision-language policies: `ActionTokenizer` and `IntegerActionText`."""

__all__ = ["ActionTokenizer", "DecodedChunk", "IntegerActionText", "make_action_tokenizer"]

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vlac_gym.checks import check_int
from vlac_gym.errors import ConfigError
from vlac_gym.specs.targets import load_target

_INTEGER = re.compile(r"-?\d+")


@dataclass(frozen=True)
class DecodedChunk:
    """A policy's reply as actions.

    Attributes:
        actions: float32 (T, A), T >= 1, inside the action space.
        is_malformed: The reply did not follow the format and was mended.
    """

    actions: NDArray[np.float32]
    is_malformed: bool


@runtime_checkable
class ActionTokenizer(Protocol):
    """Translates between action chunks and a policy's text. Never fails on what a policy may write."""

    def instructions(self) -> str:
        """What the prompt tells the policy about the format."""
        ...

    def decode(self, text: str) -> DecodedChunk:
        """Actions for any text whatsoever."""
        ...

    def encode(self, actions: NDArray[Any]) -> str:
        """Text for (T, A) actions, e.g. of demonstrations."""
        ...


class IntegerActionText:
    """Actions as space-separated integers 0..`bins`, one after the other, as in VLA-0 (arXiv 2510.13054).

    Integer k of dimension j stands for ``low[j] + (high[j] - low[j]) * k / bins``. Integers beyond the range are
    clipped, numbers beyond `chunk` actions are dropped; an action that lacks numbers, and every one after it, is
    left out. A reply without one whole action becomes a single action that rests: zero, with the gripper as it
    was last commanded (or open), so that bad text costs the policy a step and never the trainer a crash.

    Args:
        chunk: Actions per reply, >= 1.
        low: Smallest value per dimension; usually the data set's minimum, else the action space's.
        high: Largest value per dimension.
        bins: Largest integer; 1000 in VLA-0.

    Raises:
        ConfigError: Bounds that do not fit, `chunk` or `bins` below 1.

    Example:
        >>> text = IntegerActionText(chunk=1, low=[-1.0, 0.0], high=[1.0, 1.0])
        >>> text.decode("500 1000").actions.tolist()
        [[0.0, 1.0]]
    """

    def __init__(self, *, chunk: int, low: Sequence[float], high: Sequence[float], bins: int = 1000) -> None:
        self._low = np.asarray(low, dtype=np.float64)
        self._high = np.asarray(high, dtype=np.float64)
        bounds = (self._low, self._high)
        if self._low.ndim != 1 or self._low.shape != self._high.shape or not all(map(_is_finite, bounds)):
            raise ConfigError(
                f"Expected low and high as finite vectors of one length, got {self._low.tolist()} and "
                f"{self._high.tolist()}."
            )
        if not (self._low < self._high).all():
            raise ConfigError(
                f"Expected low < high everywhere, got {self._low.tolist()}, {self._high.tolist()}."
            )
        for name, value in (("chunk", chunk), ("bins", bins)):
            check_int(name, value, minimum=1)
        self._chunk, self._bins = chunk, bins
        self._gripper = float(self._low[-1])

    def instructions(self) -> str:
        """The format in one sentence."""
        return (
            f"Predict the next {self._chunk} robot actions of {len(self._low)} dimensions each. Output them as one "
            f"sequence of {self._chunk * len(self._low)} integers from 0 to {self._bins}, separated by spaces, and "
            "nothing else."
        )

    def decode(self, text: str) -> DecodedChunk:
        """float32 (1..chunk, A) actions; see the class for text that breaks the format."""
        numbers = [min(int(found[:12]), self._bins) for found in _INTEGER.findall(text)]
        size = len(self._low)
        whole = min(len(numbers) // size, self._chunk)
        is_malformed = len(numbers) != self._chunk * size or any(number < 0 for number in numbers)
        if whole == 0:
            return DecodedChunk(self._resting(), True)
        grid = np.clip(
            np.array(numbers[: whole * size], dtype=np.float64).reshape(whole, size), 0, self._bins
        )
        actions = self._low + (self._high - self._low) * grid / self._bins
        self._gripper = float(actions[-1, -1])
        return DecodedChunk(actions.astype(np.float32), is_malformed)

    def encode(self, actions: NDArray[Any]) -> str:
        """The nearest integers of (T, A) actions."""
        array = np.asarray(actions, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != len(self._low):
            raise ConfigError(f"Expected actions (T, {len(self._low)}), got {array.shape}.")
        grid = np.rint((array - self._low) / (self._high - self._low) * self._bins)
        return " ".join(str(int(number)) for number in np.clip(grid, 0, self._bins).ravel())

    def _resting(self) -> NDArray[np.float32]:
        action = np.clip(np.zeros_like(self._low), self._low, self._high)
        action[-1] = self._gripper
        return action[None].astype(np.float32)


def make_action_tokenizer(name: str, options: Mapping[str, Any]) -> ActionTokenizer:
    """Builds `integers`, or any class given as ``module:Class``, with keyword options.

    Raises:
        ConfigError: Unknown name, or the options do not fit.
    """
    factory: Any = IntegerActionText
    if name != "integers":
        if ":" not in name:
            raise ConfigError(f"Expected action_tokenizer 'integers' or 'module:Class', got {name!r}.")
        try:
            factory = load_target(name)
        except (ImportError, AttributeError) as e:
            raise ConfigError(f"Can't load action_tokenizer {name!r}: {e}.") from e
    try:
        tokenizer = factory(**options)
    except TypeError as e:
        raise ConfigError(f"The options {sorted(options)} do not fit action_tokenizer {name!r}: {e}.") from e
    if not isinstance(tokenizer, ActionTokenizer):
        raise ConfigError(f"{name!r} is no ActionTokenizer: it lacks instructions, decode or encode.")
    return tokenizer


def _is_finite(array: NDArray[Any]) -> bool:
    return bool(np.isfinite(array).all()) and array.size > 0
