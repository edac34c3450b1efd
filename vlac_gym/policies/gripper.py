"""What the last number of an action means to a policy: `GripperConvention`, `convert_gripper`. numpy only."""

__all__ = ["GripperConvention", "convert_gripper"]

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class GripperConvention(StrEnum):
    """What the last number of an action means; LIBERO's own is `PLUS_ONE_CLOSES`."""

    PLUS_ONE_CLOSES = "plus_one_closes"
    """-1 opens, +1 closes: LIBERO's own; nothing is changed."""
    PLUS_ONE_OPENS = "plus_one_opens"
    """+1 opens, -1 closes: the sign is turned."""
    ONE_OPENS = "one_opens"
    """1 opens, 0 closes (RLDS data sets, OpenVLA): becomes `-sign(2 g - 1)`; exactly 0.5 becomes 0."""


def convert_gripper(actions: NDArray[Any], convention: GripperConvention) -> NDArray[np.float32]:
    """Turns the last number of each action into LIBERO's convention; a copy.

    Args:
        actions: (..., A) in the trainer's convention.
        convention: Which one that is.

    Returns:
        float32 of the same shape.
    """
    converted = np.array(actions, dtype=np.float32)
    if convention is GripperConvention.PLUS_ONE_OPENS:
        converted[..., -1] *= -1
    elif convention is GripperConvention.ONE_OPENS:
        converted[..., -1] = -np.sign(2 * converted[..., -1] - 1)
    return converted
