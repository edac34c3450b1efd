"""Training pictures under other lights: `relight`, `Lights`, `lights_from_uniform`.

A filter over finished pictures: colour, exposure, gamma, light from a side and one soft shadow. It knows no surfaces
and no lamps, unlike `vlac_gym.envs.libero.lighting`, with which the report card renders scenes anew. Strength 1 spans
what that does to LIBERO's start pictures as a whole (warm light multiplies the channels by (1, 0.72, 0.45), cast
shadows a pixel by 0.4 at the deepest), but no single surface's 2.5 under light from the side.
"""

__all__ = ["UNIFORMS_PER_LIGHT", "Lights", "lights_from_uniform", "relight"]

import math
from dataclasses import dataclass

from vlac_gym.extras import needs

with needs("Training nano", "vlac"):
    import torch

UNIFORMS_PER_LIGHT = 15
"""Columns of the numbers that `lights_from_uniform` takes."""

_WARM_COLOUR = (1.0, 0.66, 0.34)
"""About the sRGB colour of a black body of 2700 K. Its power w is white at 0, warm at 1 and cold below 0."""

_UNTOUCHED_SHARE = 0.3
_WARMTH = (-0.4, 1.2)
_LOG_TINT = 0.12
_LOG_EXPOSURE = (-0.5, 0.4)
_LOG_GAMMA = 0.4
_STEEPEST = 0.6
_DEEPEST = 0.65
_HALF_PLANE_RADIUS = 50.0
"""A disc's edge this far from its centre is straight across the picture, whose corners are sqrt(2) from its own."""


@dataclass(frozen=True, eq=False)
class Lights:
    """One light per picture; x and y run over the picture from -1 (left, top) to 1.

    Attributes:
        gains: float32 (N, 3), factor of each channel.
        gammas: float32 (N,), exponent of the level over 255.
        slopes: float32 (N, 2), change of brightness per unit of x and y.
        centres: float32 (N, 2), the shadow's centre.
        radii: float32 (N,), the shadow's radius.
        softness: float32 (N,), width of the shadow's edge.
        depths: float32 (N,), share of the light that the shadow takes, in [0, 1].
    """

    gains: torch.Tensor
    gammas: torch.Tensor
    slopes: torch.Tensor
    centres: torch.Tensor
    radii: torch.Tensor
    softness: torch.Tensor
    depths: torch.Tensor


def lights_from_uniform(uniform: torch.Tensor, max_strength: float) -> Lights:
    """Lights of random strength; three in ten change nothing.

    Args:
        uniform: float32 (N, UNIFORMS_PER_LIGHT), uniform in [0, 1).
        max_strength: In [0, 1]; the strongest light's.
    """
    u = uniform.T
    # The root makes strong lights likelier than weak ones.
    strength = max_strength * ((u[0] - _UNTOUCHED_SHARE) / (1 - _UNTOUCHED_SHARE)).clamp(min=0.0).sqrt()
    warmth = strength * torch.lerp(u.new_tensor(_WARMTH[0]), u.new_tensor(_WARMTH[1]), u[1])
    exposure = torch.lerp(u.new_tensor(_LOG_EXPOSURE[0]), u.new_tensor(_LOG_EXPOSURE[1]), u[2])
    log_gain = strength * (exposure + _LOG_TINT * (2 * u[3:6] - 1))
    gains = warmth[:, None] * torch.tensor(_WARM_COLOUR, device=u.device).log() + log_gain.T
    side = 2 * math.pi * u[7]
    steepness = strength * _STEEPEST * u[8]
    is_disc = u[9] < 0.5
    angle, reach = 2 * math.pi * u[10], 2 * u[11] - 1
    radii = torch.where(is_disc, 0.1 + 0.6 * u[12], torch.full_like(u[12], _HALF_PLANE_RADIUS))
    distance = torch.where(is_disc, reach, reach + _HALF_PLANE_RADIUS)
    return Lights(
        gains=gains.exp(),
        gammas=(strength * _LOG_GAMMA * (2 * u[6] - 1)).exp(),
        slopes=(steepness * torch.stack([side.cos(), side.sin()])).T,
        centres=(distance * torch.stack([angle.cos(), angle.sin()])).T,
        radii=radii,
        softness=0.02 + 0.2 * u[13],
        depths=strength * _DEEPEST * u[14],
    )


def relight(pictures: torch.Tensor, lights: Lights) -> torch.Tensor:
    """Each picture under its light: ``255 (p / 255)^gamma * gain * (1 + slope . (x, y)) * (1 - shadow)``.

    The shadow is ``depth * sigmoid((radius - distance to centre) / softness)``.

    Args:
        pictures: float32 (N, H, W, 3), levels from 0 to 255.
        lights: N lights.

    Returns:
        float32 (N, H, W, 3), whole levels from 0 to 255.
    """
    height, width = pictures.shape[1:3]
    x = torch.linspace(-1, 1, width, device=pictures.device)[None, None, :]
    y = torch.linspace(-1, 1, height, device=pictures.device)[None, :, None]
    slopes, centres = lights.slopes[:, :, None, None], lights.centres[:, :, None, None]
    distance = ((x - centres[:, 0]) ** 2 + (y - centres[:, 1]) ** 2).sqrt()
    covered = ((_wide(lights.radii) - distance) / _wide(lights.softness)).sigmoid()
    field = (1 + slopes[:, 0] * x + slopes[:, 1] * y) * (1 - _wide(lights.depths) * covered)
    levels = 255 * (pictures / 255) ** lights.gammas[:, None, None, None]
    relit: torch.Tensor = (levels * lights.gains[:, None, None] * field[..., None]).round_().clamp_(0, 255)
    return relit


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None]
