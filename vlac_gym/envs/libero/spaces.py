"""What LIBERO's envs observe and take: `observation_space`, `action_space`, `checked_cameras`, `whole_number`."""

__all__ = ["action_space", "checked_cameras", "observation_space", "whole_number"]

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from vlac_gym.envs.libero.tasks import CAMERAS
from vlac_gym.errors import ConfigError, unknown_name


def observation_space(cameras: Sequence[str], image_size: int) -> spaces.Dict[Any]:
    """`{camera}_image` of each camera, uint8 (image_size, image_size, 3), and `state`, float32 (8,)."""
    picture = (image_size, image_size, 3)
    # The arm reaches 0.855 m from its base, which stands within 1 m of the origin; 4 m leaves room.
    bound = np.array([4.0] * 3 + [2 * math.pi] * 3 + [0.1] * 2, dtype=np.float32)
    return spaces.Dict(
        {
            **{f"{camera}_image": spaces.Box(0, 255, picture, np.uint8) for camera in cameras},
            "state": spaces.Box(-bound, bound, dtype=np.float32),
        }
    )


def action_space() -> "spaces.Box[Any]":
    """float32 (7,), in [-1, 1]."""
    return spaces.Box(-1.0, 1.0, (7,), np.float32)


def checked_cameras(cameras: Sequence[str]) -> tuple[str, ...]:
    """The names of the chosen cameras.

    Raises:
        ConfigError: An unknown name, none, or one twice.
    """
    names = (cameras,) if isinstance(cameras, str) else tuple(cameras)
    for name in names:
        if name not in CAMERAS:
            raise unknown_name("camera", str(name), CAMERAS)
    if not names or len(set(names)) != len(names):
        raise ConfigError(
            f"Expected one or two different cameras of {', '.join(CAMERAS)}, got {list(names)}."
        )
    return names


def whole_number(name: str, value: int, low: int, high: int) -> int:
    """An argument as an int.

    Raises:
        ConfigError: It is none, or not in low..high.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ConfigError(f"Expected {name} to be a whole number in {low}..{high}, got {value!r}.")
    return int(value)
