"""Cameras under other lights: `LIGHTS`, `split_view`, `relit`.

A view is a camera's name, or `CAMERA@LIGHT` for the same camera under a changed light. The scene is lit anew by
MuJoCo, not filtered afterwards. The four axes are those on which LIBERO-Plus (Fei et al., 2025) changes the
light. It draws values at random; here each axis has one value, so that all episodes are changed alike:

| light | what changes | LIBERO's own value |
|---|---|---|
| `diffuse` | diffuse colour of lamps and headlight times (1, 0.66, 0.34), about a lamp of 2700 K in sRGB | white |
| `direction` | both lamps hang 4 m off at the robot's right, 45 degrees high, aimed at the workspace | above |
| `specular` | specular intensity 1 of lamps and headlight | 0.3 and 0.5 |
| `shadow` | both lamps cast shadows | no shadows |

Every other value stays as it was, and all of them are put back after each picture.
"""

__all__ = ["LIGHTS", "VIEW_NAMES", "relit", "split_view"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from vlac_gym.envs.libero.tasks import CAMERAS
from vlac_gym.errors import unknown_name

WARM_COLOUR = (1.0, 0.66, 0.34)
"""About the sRGB colour of a black body of 2700 K, a warm household lamp."""

SIDE_DIRECTION = (0.0, np.sqrt(0.5), -np.sqrt(0.5))
"""Direction in which light from the robot's right (world -y) and 45 degrees above falls."""

SIDE_DISTANCE_M = 4.0
WORKSPACE = (0.0, 0.0, 0.5)
"""A point over the tables (0.8 to 0.9 m high) and the floor scenes (0 m) of LIBERO, world m."""


def _diffuse(model: Any, data: Any) -> None:
    model.light_diffuse[:] *= WARM_COLOUR
    model.vis.headlight.diffuse[:] *= WARM_COLOUR


def _direction(model: Any, data: Any) -> None:
    data.light_xdir[:] = SIDE_DIRECTION
    data.light_xpos[:] = np.subtract(WORKSPACE, np.multiply(SIDE_DISTANCE_M, SIDE_DIRECTION))


def _specular(model: Any, data: Any) -> None:
    model.light_specular[:] = 1.0
    model.vis.headlight.specular[:] = 1.0


def _shadow(model: Any, data: Any) -> None:
    model.light_castshadow[:] = True


_CHANGES: dict[str, Callable[[Any, Any], None]] = {
    "diffuse": _diffuse,
    "direction": _direction,
    "specular": _specular,
    "shadow": _shadow,
}

LIGHTS = tuple(_CHANGES)
"""Names of the lights; the module's docstring says what they change."""

VIEW_NAMES = tuple(
    view for camera in CAMERAS for view in (camera, *(f"{camera}@{light}" for light in LIGHTS))
)
"""Every view that LIBERO's cameras have."""


def split_view(view: str) -> tuple[str, str | None]:
    """Splits `agentview@shadow` into camera and light; the light is None for a plain camera.

    Raises:
        ConfigError: No such camera or light.
    """
    camera, at, light = view.partition("@")
    if camera not in CAMERAS:
        raise unknown_name("camera", camera, CAMERAS)
    if at and light not in LIGHTS:
        raise unknown_name(f"light of view {view!r}:", light, LIGHTS)
    return camera, light if at else None


@contextmanager
def relit(model: Any, data: Any, light: str) -> Iterator[None]:
    """Changes what a renderer reads of the lights, and puts it back bit for bit.

    Physics reads none of it. Other envs may share `model`: hold its lock.

    Args:
        model: The compiled ``MjModel``.
        data: The ``MjData`` to show; its light positions must be computed.
        light: One of `LIGHTS`.
    """
    head = model.vis.headlight
    touched = (
        model.light_diffuse, model.light_specular, model.light_castshadow,
        head.diffuse, head.specular, data.light_xpos, data.light_xdir,
    )  # fmt: skip
    before = [array.copy() for array in touched]
    try:
        _CHANGES[light](model, data)
        yield
    finally:
        for array, values in zip(touched, before):
            array[:] = values
