"""Which way up and which way round pictures are: `ImageConvention`, `convert_image`. numpy only."""

__all__ = ["ImageConvention", "convert_image"]

from enum import StrEnum

import numpy as np

from vlac_gym.types import Frame


class ImageConvention(StrEnum):
    """How a policy wants pictures; the critic always sees them upright.

    MuJoCo renders bottom-up, so projects that turned the raw picture by 180 degrees train on pictures that are
    upright but mirrored left to right, in which task texts saying "left" mean the other side.
    """

    UPRIGHT = "upright"
    RAW_ROTATED_180 = "raw_rotated_180"
    """OpenVLA, OpenVLA-OFT, pi0's LIBERO recipe, verl-vla, SimpleVLA-RL, the LIBERO sets published for LeRobot
    (lerobot `processor/env_processor.py`): `raw[::-1, ::-1]`."""
    RAW = "raw"
    """As MuJoCo renders: bottom row first."""


def convert_image(frame: Frame, convention: ImageConvention) -> Frame:
    """Turns an upright picture into the convention's; contiguous, and a copy unless nothing changes.

    Args:
        frame: uint8 (H, W, 3), upright.
        convention: What the policy was trained on.
    """
    if convention is ImageConvention.UPRIGHT:
        return frame
    turned = frame[:, ::-1] if convention is ImageConvention.RAW_ROTATED_180 else frame[::-1]
    return np.ascontiguousarray(turned)
