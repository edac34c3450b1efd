"""Training's changes of light, each by its numbers."""

import dataclasses
import math

import pytest

torch = pytest.importorskip("torch")

from vlac_gym.train_nano.relighting import (  # noqa: E402
    UNIFORMS_PER_LIGHT,
    Lights,
    lights_from_uniform,
    relight,
)

PLAIN = Lights(
    gains=torch.ones(1, 3),
    gammas=torch.ones(1),
    slopes=torch.zeros(1, 2),
    centres=torch.zeros(1, 2),
    radii=torch.ones(1),
    softness=torch.ones(1),
    depths=torch.zeros(1),
)


def lit(level: float, **changes: list) -> list:
    """A flat 3 x 3 picture under the plain light with `changes`."""
    lights = dataclasses.replace(PLAIN, **{name: torch.tensor(value) for name, value in changes.items()})
    return relight(torch.full((1, 3, 3, 3), level), lights)[0]


def test_gains_are_per_channel_and_clipped():
    picture = lit(100.0, gains=[[3.0, 1.0, 0.34]])
    assert picture.unique(dim=0).shape[0] == 1
    assert picture[0, 0].tolist() == [255.0, 100.0, 34.0]


def test_gamma_bends_levels_between_black_and_white():
    # 255 (51 / 255)^2 = 255 / 25.
    assert lit(51.0, gammas=[2.0])[1, 1, 0].item() == 10.0
    assert lit(255.0, gammas=[2.0])[1, 1, 0].item() == 255.0
    assert lit(0.0, gammas=[0.5])[1, 1, 0].item() == 0.0


def test_a_slope_brightens_one_side():
    # x and y are -1, 0, 1; 100 (1 + 0.5 x + 0.2 y).
    picture = lit(100.0, slopes=[[0.5, 0.2]])[:, :, 1]
    assert picture.tolist() == [[30.0, 80.0, 130.0], [50.0, 100.0, 150.0], [70.0, 120.0, 170.0]]


def test_a_shadow_darkens_inside_its_radius_with_a_soft_edge():
    # At the centre sigmoid(1 / 0.1) of half the light is gone, at the edge (distance 1) half of that half.
    picture = lit(200.0, depths=[0.5], softness=[0.1])[:, :, 0]
    assert picture[1].tolist() == [150.0, 100.0, 150.0]
    # At a corner sigmoid((1 - sqrt 2) / 0.1) = 0.0156.
    assert picture[0, 0].item() == round(200 * (1 - 0.5 / (1 + math.exp((math.sqrt(2) - 1) / 0.1)))) == 198


def test_a_far_centre_shadows_a_half_plane():
    picture = lit(200.0, depths=[0.5], radii=[50.0], centres=[[50.5, 0.0]], softness=[0.02])[:, :, 0]
    assert picture.tolist() == [[200.0, 200.0, 100.0]] * 3


def test_three_in_ten_lights_change_no_bit():
    levels = torch.arange(256.0).reshape(1, 16, 16, 1).repeat(1, 1, 1, 3)
    uniform = torch.full((1, UNIFORMS_PER_LIGHT), 0.9)
    uniform[0, 0] = 0.29
    assert torch.equal(relight(levels, lights_from_uniform(uniform, 1.0)), levels)
    uniform[0, 0] = 0.35
    assert not torch.equal(relight(levels, lights_from_uniform(uniform, 1.0)), levels)


def test_the_strongest_light_is_the_documented_one():
    uniform = torch.ones(1, UNIFORMS_PER_LIGHT)
    uniform[0, 3:6] = 0.5  # No tint beside the colour.
    lights = lights_from_uniform(uniform, 1.0)
    exposure = math.exp(0.4)
    assert lights.gains[0].tolist() == pytest.approx([exposure, 0.66**1.2 * exposure, 0.34**1.2 * exposure])
    assert lights.gammas.item() == pytest.approx(math.exp(0.4))
    assert lights.slopes[0].tolist() == pytest.approx([0.6, 0.0], abs=1e-6)
    assert lights.depths.item() == pytest.approx(0.65)
    # A half-plane whose edge runs through x = 1.
    assert lights.centres[0, 0].item() - lights.radii.item() == pytest.approx(1.0)
    half = lights_from_uniform(uniform, 0.5)
    assert half.gains[0].log().tolist() == pytest.approx([x / 2 for x in lights.gains[0].log().tolist()])
    assert half.depths.item() == pytest.approx(0.325)


def test_a_disc_lies_within_reach_of_the_picture():
    uniform = torch.zeros(1, UNIFORMS_PER_LIGHT)
    uniform[0, 11] = 0.75
    uniform[0, 12] = 0.5
    lights = lights_from_uniform(uniform, 1.0)
    assert lights.centres[0].tolist() == [0.5, 0.0]
    assert lights.radii.item() == pytest.approx(0.4)
