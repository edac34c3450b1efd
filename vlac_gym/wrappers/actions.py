"""Actions of one env, checked before anything moves: `check_action`."""

__all__ = ["check_action"]

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space

from vlac_gym.errors import ConfigError
from vlac_gym.vector.actions import as_array, require_numbers


def check_action(action: Any, space: Space[Any]) -> None:
    """Refuses what an env could stumble over half way.

    Args:
        action: Any form that `np.asarray` reads; values beyond the bounds are the env's own affair.
        space: The action space; only a Box is looked at.

    Raises:
        ConfigError: Another shape than the space's, no numbers, or not finite.
    """
    if not isinstance(space, Box):
        return
    array = as_array(action, "an action")
    if array.shape != space.shape:
        raise ConfigError(
            f"Expected an action of shape {space.shape}, got {array.shape}. The env has not moved."
        )
    require_numbers(array, "an action")
    if not np.isfinite(array).all():
        raise ConfigError(f"Expected a finite action, got {array.tolist()}. The env has not moved.")
