"""What the pictures of episodes and of scores draw alike: `load_font`, `paste_frame`."""

__all__ = ["load_font", "paste_frame"]

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.extras import needs
from vlac_gym.types import Frame


def paste_frame(picture: Frame, frame: Frame, box: tuple[int, int, int]) -> None:
    """Scales `frame` into the square `box` (left, top, side; pixels) of `picture`, centred, its proportions kept."""
    with needs("A picture", "video"):
        from PIL import Image

    left, top, size = box
    height, width = frame.shape[:2]
    scale = size / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    scaled = np.asarray(Image.fromarray(frame).resize(shape, Image.Resampling.BICUBIC))
    y, x = top + (size - shape[1]) // 2, left + (size - shape[0]) // 2
    picture[y : y + shape[1], x : x + shape[0]] = scaled


@lru_cache(maxsize=32)
def load_font(size: int, *, is_bold: bool = False) -> Any:
    """DejaVu Sans as matplotlib ships it, `size` pixels high."""
    with needs("A picture", "video"):
        import matplotlib
        from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
