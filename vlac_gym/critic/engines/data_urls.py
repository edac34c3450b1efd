"""Frames as other engines take them: `square_picture` (a Pillow image) and `png_data_url`."""

__all__ = ["check_side", "png_data_url", "square_picture"]

import base64
import io
from typing import Any

from vlac_gym.errors import ConfigError, DependencyNotInstalled
from vlac_gym.types import Frame


def square_picture(frame: Frame, side: int | None) -> Any:
    """The frame as a `PIL.Image`, resized to `side` x `side` with LANCZOS.

    VLAC sees one square tile per frame, aspect ratio not kept. Engines that tile pictures by their aspect
    ratio make one tile of a picture that has the model's own size already.

    Args:
        frame: uint8 (H, W, 3); not modified.
        side: Pixels of a side, or None to keep the frame's size.
    """
    image_module = _pillow()
    picture = image_module.fromarray(frame)
    if side is None or picture.size == (side, side):
        return picture
    return picture.resize((side, side), image_module.Resampling.LANCZOS)


def png_data_url(frame: Frame, side: int | None) -> str:
    """The frame as a `data:image/png;base64,…` URL, resized like `square_picture`; lossless."""
    buffer = io.BytesIO()
    square_picture(frame, side).save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def check_side(side: int | None) -> None:
    """Raises `ConfigError` unless `side` is None or a positive number of pixels."""
    if side is not None and (not isinstance(side, int) or side < 1):
        raise ConfigError(f"Expected image_size as a number of pixels >= 1 or None, got {side!r}.")


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as e:
        raise DependencyNotInstalled(
            'Sending frames needs Pillow. Run: pip install "vlac-gym[openai]"'
        ) from e
    return Image
