"""Several envs in one picture: `EnvTile` says what one shows, `GridVideo` draws and keeps them and writes an mp4."""

__all__ = ["EnvTile", "GridVideo"]

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.extras import needs
from vlac_gym.reporting.drawing import load_font, paste_frame
from vlac_gym.reporting.mp4 import write_mp4
from vlac_gym.types import Frame

_PAD, _CAPTION, _TRACE = 4, 54, 40
"""Pixels: between tiles, height of the texts, height of the action traces."""

_INK, _MUTED, _GOOD, _BAD = "#111827", "#6b7280", "#15803d", "#b91c1c"
_TRACE_COLORS = ("#2563eb", "#d97706", "#15803d", "#b91c1c", "#7c3aed", "#0f766e", "#111827")
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class EnvTile:
    """What one env's tile shows now.

    Attributes:
        frames: The env's cameras, side by side; uint8 (H, W, 3).
        title: First line: which env, which task.
        status: Second line: step, the critic's opinion, outcome.
        outcome: Whether the episode that is over was a success; None while it runs or without a verdict.
        actions: The actions of the episode so far, each (A,) in [-1, 1].
    """

    frames: tuple[Frame, ...]
    title: str = ""
    status: str = ""
    outcome: bool | None = None
    actions: Sequence[Any] = ()


class GridVideo:
    """Pictures of a grid of envs, kept compressed (JPEG) until they are written.

    Args:
        num_columns: Tiles in a row; None makes the grid about square.
        tile_size: Side of the square that a camera's picture is scaled to, pixels.
        with_info: Draw texts and action traces; without, the cameras alone.
    """

    def __init__(
        self, *, num_columns: int | None = None, tile_size: int = 160, with_info: bool = True
    ) -> None:
        self._num_columns, self._tile_size, self._with_info = num_columns, tile_size, with_info
        self._pictures: list[bytes] = []

    def __len__(self) -> int:
        return len(self._pictures)

    def add(self, tiles: Sequence[EnvTile]) -> None:
        """Draws the next picture; every call has as many tiles, with as many cameras."""
        with needs("A picture", "video"):
            from PIL import Image
        drawn = [self._tile(tile) for tile in tiles]
        columns = self._num_columns or math.ceil(math.sqrt(len(drawn)))
        height, width = drawn[0].shape[:2]
        rows = math.ceil(len(drawn) / columns)
        canvas = np.full((rows * height, columns * width, 3), 255, np.uint8)
        for number, tile in enumerate(drawn):
            top, left = number // columns * height, number % columns * width
            canvas[top : top + height, left : left + width] = tile
        buffer = io.BytesIO()
        Image.fromarray(canvas).save(buffer, "JPEG", quality=_JPEG_QUALITY)
        self._pictures.append(buffer.getvalue())

    def write(self, path: Path, *, fps: float) -> None:
        """Writes all pictures as one mp4, whole or not at all."""
        write_mp4(self._decoded(), path, fps=fps)

    def _decoded(self) -> Iterator[Frame]:
        with needs("A picture", "video"):
            from PIL import Image
        for data in self._pictures:
            yield np.array(Image.open(io.BytesIO(data)))

    def _tile(self, tile: EnvTile) -> Frame:
        with needs("A picture", "video"):
            from PIL import Image, ImageDraw
        side, top = self._tile_size, _CAPTION if self._with_info else 0
        width = _PAD + len(tile.frames) * (side + _PAD)
        height = top + side + (_TRACE + _PAD if self._with_info else 0) + 2 * _PAD
        canvas = np.full((height + height % 2, width + width % 2, 3), 255, np.uint8)
        for number, frame in enumerate(tile.frames):
            paste_frame(canvas, frame, (_PAD + number * (side + _PAD), top + _PAD, side))
        if not self._with_info:
            return canvas
        image = Image.fromarray(canvas)
        draw = ImageDraw.Draw(image)
        color = {None: _MUTED, True: _GOOD, False: _BAD}[tile.outcome]
        for number, line in enumerate(_lines(draw, tile.title, width - 2 * _PAD)):
            draw.text((_PAD, 3 + 16 * number), line, fill=_INK, font=load_font(12, is_bold=True))
        draw.text((_PAD, 36), tile.status, fill=color, font=load_font(12))
        _draw_actions(draw, tile.actions, (_PAD, top + side + 2 * _PAD, width - 2 * _PAD, _TRACE))
        return np.array(image)


def _lines(draw: Any, text: str, room: int) -> list[str]:
    """The text in at most two lines, cut with an ellipsis."""
    font = load_font(12, is_bold=True)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) <= room or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > 2:
        while draw.textlength(f"{lines[1]}…", font=font) > room:
            lines[1] = lines[1][:-1]
        lines = [lines[0], f"{lines[1]}…"]
    return lines


def _draw_actions(draw: Any, actions: Sequence[Any], box: tuple[int, int, int, int]) -> None:
    """One line per dimension, -1 at the bottom and 1 at the top, the latest at the right."""
    left, top, width, height = box
    draw.rectangle((left, top, left + width, top + height), outline="#e5e7eb")
    recent = np.asarray([np.ravel(action) for action in actions[-width:]], np.float64)
    if recent.size == 0 or recent.ndim != 2:
        return
    y = top + (1 - np.clip(recent, -1, 1)) / 2 * height
    x = left + np.linspace(0, width, max(2, len(recent)))
    for dimension in range(recent.shape[1]):
        points = list(zip(x.tolist(), np.resize(y[:, dimension], len(x)).tolist(), strict=True))
        draw.line(points, fill=_TRACE_COLORS[dimension % len(_TRACE_COLORS)], width=1)
