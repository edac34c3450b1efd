"""Actions of a vector env, checked before anything moves: `checked_chunks`."""

__all__ = ["checked_chunks"]

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError


def checked_chunks(
    actions: NDArray[Any], num_envs: int, action_shape: tuple[int, ...]
) -> Sequence[NDArray[Any]]:
    """The chunks by env.

    Args:
        actions: (num_envs, T, *action_shape), T >= 1.
        num_envs: N.
        action_shape: Shape of one env's action.

    Raises:
        ConfigError: Wrong shape, or not finite.
    """
    array = np.asarray(actions)
    if array.ndim < 2 or array.shape[0] != num_envs or array.shape[1] == 0 or array.shape[2:] != action_shape:
        wanted = ", ".join(str(n) for n in (num_envs, "T >= 1", *action_shape))
        raise ConfigError(f"Expected actions of shape ({wanted}), got {array.shape}; `step` takes no axis T.")
    if not np.isfinite(array).all():
        where = sorted(set(np.argwhere(~np.isfinite(array))[:, 0].tolist()))
        raise ConfigError(f"Expected finite actions, got NaN or infinity for envs {where}; nothing moved.")
    return list(array)
