"""Whether a critic's answer is what was asked for: `checked_answers`, and its two steps `of_shape` and `in_range`."""

__all__ = ["checked_answers", "in_range", "of_shape"]

import numpy as np

from vlac_gym.errors import CriticResponseError
from vlac_gym.types import FloatArray


def checked_answers(answers: object, count: int, low: float, what: str) -> FloatArray:
    """Returns the answers as float32 (count,), all in [low, 1].

    Raises:
        CriticResponseError: Wrong shape, not finite, or out of range.
    """
    array = of_shape(answers, count, what)
    for n in range(count):
        in_range(array, n, low, what)
    return array


def of_shape(answers: object, count: int, what: str) -> FloatArray:
    """Returns the answers as float32 (count,), whatever their values.

    Raises:
        CriticResponseError: Wrong shape, or no numbers.
    """
    try:
        array = np.asarray(answers, dtype=np.float32)
    except (TypeError, ValueError) as e:
        raise CriticResponseError(
            f"Expected {what} as {count} numbers from the critic, got {answers!r}."
        ) from e
    if array.shape != (count,):
        raise CriticResponseError(f"Expected {what} of shape ({count},) from the critic, got {array.shape}.")
    return array


def in_range(array: FloatArray, n: int, low: float, what: str) -> float:
    """Returns the n-th answer, in [low, 1].

    Raises:
        CriticResponseError: It is not finite, or out of range.
    """
    value = float(array[n])
    if not low <= value <= 1.0:
        raise CriticResponseError(
            f"Expected {what} in [{low:g}, 1] from the critic, got {value!r} at index {n} of {len(array)}."
        )
    return value
