"""Writes an episode as mp4: the frame (and the wrist camera's), the instruction, and the critic's curves beside it.

`write_video` draws and encodes; `compose_frames` yields the pictures alone.
"""

__all__ = ["VIDEO_SIZE", "WRIST_WIDTH", "compose_frames", "write_video"]

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.reporting.curves import CurvePanel, draw_panel
from vlac_gym.reporting.drawing import load_font, paste_frame
from vlac_gym.reporting.episode_picture import COLORS, EpisodePicture
from vlac_gym.reporting.mp4 import write_mp4
from vlac_gym.types import Frame

VIDEO_SIZE = (1120, 560)
"""Width and height in pixels; both multiples of 16, so that no encoder rescales. A wrist view adds `WRIST_WIDTH`."""

WRIST_WIDTH = 464
"""What a wrist view adds to the width, pixels; a multiple of 16."""

_FRAME_BOX = (16, 88, 448)  # left, top, size of the square that holds the env's frame
_WRIST_BOX = (480, 88, 448)
_PANEL_BOX = (
    480,
    88,
    624,
    344,
)  # left, top, width, height of the curves; further right by `WRIST_WIDTH` beside a wrist view
_READOUT_TOP = 446
_CURSOR_COLOR = (156, 163, 175)
_HOLD_S = 1.5  # the last picture stands still for this long, so that the end can be read


def write_video(picture: EpisodePicture, path: Path, *, subtitle: str = "", fps: float = 20.0) -> None:
    """Writes one mp4 (H.264, yuv420p), whole or not at all, marked as annotated.

    Args:
        picture: What to draw, with frames.
        path: Target, ending in `.mp4`; replaced if it exists.
        subtitle: Line under the instruction: mode, critic, suite, …
        fps: Pictures per second, above 0; 20 is LIBERO's control rate, so it plays in real time.

    Raises:
        ConfigError: There are no frames, or `fps` is not above 0.
        DependencyNotInstalled: imageio-ffmpeg, matplotlib or pillow is missing.
        OSError: ffmpeg failed, or wrote fewer pictures than it was given.
    """
    if not fps > 0:
        raise ConfigError(f"Expected fps above 0, got {fps!r}.")
    write_mp4(compose_frames(picture, subtitle=subtitle), path, fps=fps, hold_s=_HOLD_S)


def compose_frames(picture: EpisodePicture, *, subtitle: str = "") -> Iterator[Frame]:
    """Yields one picture per frame of the episode, the first one first; `VIDEO_SIZE`, wider with a wrist view.

    Args:
        picture: What to draw, with frames.
        subtitle: Line under the instruction.

    Raises:
        ConfigError: There are no frames.
    """
    if not picture.frames:
        raise ConfigError("Expected an episode with frames, got none. Record frames, or leave the video out.")
    panel = draw_panel(picture, *_PANEL_BOX[2:])
    background = _background(picture, subtitle)
    for now, frame in enumerate(picture.frames):
        yield _compose(picture, panel, background, now, frame)


def _compose(picture: EpisodePicture, panel: CurvePanel, background: Frame, now: int, frame: Frame) -> Frame:
    with needs("A picture", "video"):
        from PIL import Image, ImageDraw

    canvas = background.copy()
    paste_frame(canvas, frame, _FRAME_BOX)
    if picture.wrist_frames:
        paste_frame(canvas, picture.wrist_frames[now], _WRIST_BOX)
    left, (_, top, width, height) = _panel_left(picture), _PANEL_BOX
    curves = panel.at(now)
    if all(verdict.at != now for verdict in picture.verdicts):
        curves[slice(*panel.rows), panel.columns[now]] = _CURSOR_COLOR
    canvas[top : top + height, left : left + width] = curves
    image = Image.fromarray(canvas)
    _draw_readout(ImageDraw.Draw(image), picture, now)
    composed: Frame = np.array(image)
    return composed


def _panel_left(picture: EpisodePicture) -> int:
    return _PANEL_BOX[0] + (WRIST_WIDTH if picture.wrist_frames else 0)


def _background(picture: EpisodePicture, subtitle: str) -> Frame:
    with needs("A picture", "video"):
        from PIL import Image, ImageDraw

    width, height = VIDEO_SIZE[0] + (WRIST_WIDTH if picture.wrist_frames else 0), VIDEO_SIZE[1]
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for left, top, size in (_FRAME_BOX, _WRIST_BOX) if picture.wrist_frames else (_FRAME_BOX,):
        draw.rectangle((left, top, left + size - 1, top + size - 1), fill="#111827")
    room = width - 32
    ink, muted = COLORS["ink"], COLORS["muted"]
    lines = _draw_fitted(draw, (16, 10), picture.task, 24, room, fill=ink, is_bold=True, max_lines=2)
    _draw_fitted(draw, (16, 50 if lines == 1 else 65), subtitle, 15, room, fill=muted)
    background: Frame = np.array(image)
    return background


def _draw_readout(draw: Any, picture: EpisodePicture, now: int) -> None:
    left = _panel_left(picture) + 8
    for x, (text, color) in zip((0, 170, 358, 476), picture.readout(now)):
        draw.text((left + x, _READOUT_TOP), text, fill=color, font=load_font(16, is_bold=True))
    for number, verdict in enumerate(picture.verdicts):
        at = (left, _READOUT_TOP + 34 + 28 * number)
        draw.text(at, verdict.line(now, picture.last), fill=COLORS[verdict.color], font=load_font(16))


def _draw_fitted(
    draw: Any,
    at: tuple[int, int],
    text: str,
    size: int,
    room: int,
    *,
    fill: str,
    is_bold: bool = False,
    max_lines: int = 1,
) -> int:
    """Writes `text` as large as its lines allow, cut only where the smallest letters don't fit; returns the lines."""
    for smaller in range(size, 11, -1):
        font = load_font(smaller, is_bold=is_bold)
        lines = _wrapped(draw, text, font, room)
        if len(lines) <= max_lines and all(draw.textlength(line, font=font) <= room for line in lines):
            break
    else:
        lines = [*lines[: max_lines - 1], " ".join(lines[max_lines - 1 :])]
    for number, line in enumerate(lines):
        y = at[1] + number * (smaller + 3)
        draw.text((at[0], y), _cut(draw, line, font, room), fill=fill, font=font)
    return len(lines)


def _wrapped(draw: Any, text: str, font: Any, room: int) -> list[str]:
    """Lines of whole words, each as full as `room` pixels allow; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and draw.textlength(longer, font=font) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]


def _cut(draw: Any, line: str, font: Any, room: int) -> str:
    while line and draw.textlength(line, font=font) > room:
        line = line.rstrip("…")[:-1] + "…"
    return line
