"""Conventions of pictures, on one small enough to check by hand."""

import numpy as np
import pytest

from vlac_gym.frames.convention import ImageConvention, convert_image


def picture() -> np.ndarray:
    """2 x 2 pixels whose red channel reads 1 2 / 3 4."""
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[..., 0] = [[1, 2], [3, 4]]
    return frame


@pytest.mark.parametrize(
    ("convention", "red"),
    [
        (ImageConvention.UPRIGHT, [[1, 2], [3, 4]]),
        (ImageConvention.RAW, [[3, 4], [1, 2]]),
        (ImageConvention.RAW_ROTATED_180, [[2, 1], [4, 3]]),
    ],
)
def test_pictures_turn_into_each_convention(convention, red):
    frame = picture()
    converted = convert_image(frame, convention)
    assert converted[..., 0].tolist() == red
    assert converted.flags.c_contiguous
    assert frame[..., 0].tolist() == [[1, 2], [3, 4]]


def test_rotated_convention_is_the_raw_picture_turned_by_180_degrees():
    raw = convert_image(picture(), ImageConvention.RAW)
    assert np.array_equal(convert_image(picture(), ImageConvention.RAW_ROTATED_180), raw[::-1, ::-1])
