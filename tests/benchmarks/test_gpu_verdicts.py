"""How gpu_verdicts.py tells pictures, verdicts and actions apart."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from benchmark_scripts import load_benchmark
from PIL import Image


@pytest.fixture(scope="module")
def gpu_verdicts() -> ModuleType:
    return load_benchmark("gpu_verdicts")


def test_levels_and_decibels_of_each_camera(gpu_verdicts: ModuleType) -> None:
    own = np.full((2, 2, 4, 4, 3), 100, np.uint8)
    pictures = own.copy()
    pictures[0, 0] = 90  # 10 levels: 20 log10(25.5) = 28.13 dB
    pictures[1, 0] = 101  # 1 level: 20 log10(255) = 48.13 dB
    pictures[:, 1, :2] = 102  # half of the rows
    pictures[:, 1, 2:] = 98
    assert gpu_verdicts.picture_lines(pictures, own) == [
        "agentview: -4.50 levels, 5.50 absolute, 38.1 dB, the worst picture 28.1 dB",
        "wrist: +0.00 levels, 2.00 absolute, 42.1 dB, the worst picture 42.1 dB",
    ]


def test_verdicts_are_compared_at_each_threshold(gpu_verdicts: ModuleType) -> None:
    here = {"success_prob": np.array([0.1, 0.6, 0.94, 0.96]), "value": np.array([0.0, 0.5, 0.5, 1.0])}
    there = {"success_prob": np.array([0.1, 0.4, 0.96, 0.98]), "value": np.array([0.0, 0.4, 0.5, 1.0])}
    assert gpu_verdicts.verdict_line(there, here) == (
        "done at 0.5 the same in 3 of 4 (3 done); done at 0.9 the same in 4 of 4 (2 done); done at 0.95 the same in "
        "3 of 4 (1 done); success_prob apart by up to 0.200, on average 0.0600; value apart by up to 0.100, on average "
        "0.0250"
    )


def test_actions_are_measured_by_their_spread(gpu_verdicts: ModuleType) -> None:
    here = np.array([[0.0, 0.0], [2.0, 4.0]])  # standard deviations 1 and 2
    there = here + np.array([[0.5, 0.5], [-0.5, -0.5]])
    assert gpu_verdicts.action_line(there, here) == (
        "actions apart by 0.375 of their spread over states (root mean square, mean of 2 components; 0.500 in the "
        "worst), largest 0.500"
    )


def test_the_picture_shows_both_and_their_difference(gpu_verdicts: ModuleType, tmp_path: Path) -> None:
    own = np.full((3, 2, 8, 8, 3), 100, np.uint8)
    pictures = own.copy()
    pictures[:, 0] = 110
    gpu_verdicts.save_side_by_side(tmp_path / "both.png", pictures, own)
    with Image.open(tmp_path / "both.png") as image:
        assert image.size == (6 * 8, 3 * 8)
        row = [image.getpixel((8 * i, 0))[0] for i in range(6)]
    assert row == [100, 110, 168, 100, 100, 128]
