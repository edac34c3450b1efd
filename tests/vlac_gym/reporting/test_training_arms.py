import io

import numpy as np
import pytest
from PIL import Image

from vlac_gym.errors import ConfigError
from vlac_gym.metrics.writer import MetricsWriter
from vlac_gym.reporting.training_arms import TrainingArm, draw_arms


@pytest.fixture
def make_run(tmp_path):
    def make(name, *rates):
        with MetricsWriter(tmp_path / name) as writer:
            for step, rate in enumerate(rates):
                writer.write(100 * step, {"eval/success_rate": rate, "env/success_rate": rate / 2})
        return tmp_path / name

    return make


def _pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


def _coloured(pixels, colour):
    return int((np.abs(pixels - np.array(colour)).max(-1) < 8).sum())


def test_gains_are_last_minus_first_of_each_run(make_run):
    arm = TrainingArm.read("oracle", [make_run("a", 0.2, 0.9, 0.7), make_run("b", 0.2, 0.1)])
    assert arm.gains() == pytest.approx([0.5, -0.1])


def test_every_run_of_every_arm_is_drawn_in_its_arms_colour(make_run):
    green, blue = (0x15, 0x80, 0x3D), (0x1D, 0x4E, 0xD8)
    two = TrainingArm.read("oracle", [make_run("a", 0.2, 0.9), make_run("b", 0.3, 0.1)])
    one = TrainingArm("oracle", two.runs[:1])
    other = TrainingArm.read("nano", [make_run("c", 0.5, 0.5)])
    alone, both, with_other = (_pixels(draw_arms(arms)) for arms in ([one], [two], [two, other]))
    assert _coloured(both, green) > 1.4 * _coloured(alone, green)
    assert _coloured(both, blue) < 20 < 100 < _coloured(with_other, blue)


def test_what_cannot_be_shown_is_refused(make_run):
    run = make_run("a", 0.2)
    with pytest.raises(ConfigError, match="one run or more for the arm 'oracle'"):
        TrainingArm.read("oracle", [])
    with pytest.raises(ConfigError, match="two evaluations or more of each run of 'oracle', got 1"):
        TrainingArm.read("oracle", [run]).gains()
    with pytest.raises(ConfigError, match="1 to 8 arms in a picture, got 0"):
        draw_arms([])
