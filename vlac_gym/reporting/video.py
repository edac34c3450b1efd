"""Writes an episode as mp4: the frame, the instruction, and the critic's curves growing beside it.

`write_video` draws and encodes; `compose_frames` yields the pictures alone.
"""

__all__ = ["VIDEO_SIZE", "compose_frames", "write_video"]

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.reporting.curves import COLORS, CurvePanel, draw_panel
from vlac_gym.reporting.drawing import load_font, paste_frame
from vlac_gym.reporting.mp4 import write_mp4
from vlac_gym.reporting.trace import EpisodeTrace
from vlac_gym.types import Frame

VIDEO_SIZE = (1120, 560)
"""Width and height in pixels; both multiples of 16, so that no encoder rescales."""

_FRAME_BOX = (16, 88, 448)  # left, top, size of the square that holds the env's frame
_PANEL_BOX = (480, 88, 624, 344)  # left, top, width, height of the curves
_READOUT_TOP = 446
_CURSOR_COLOR = (156, 163, 175)
_HOLD_S = 1.5  # the last picture stands still for this long, so that the end can be read


def write_video(trace: EpisodeTrace, path: Path, *, subtitle: str = "", fps: int = 20) -> None:
    """Writes one mp4 (H.264, yuv420p), whole or not at all, marked as annotated.

    Args:
        trace: A finished episode with frames.
        path: Target, ending in `.mp4`; replaced if it exists.
        subtitle: Line under the instruction: mode, critic, suite, …
        fps: Pictures per second; 20 is LIBERO's control rate, so it plays in real time.

    Raises:
        ConfigError: The trace has no frames, or `fps` is below 1.
        DependencyNotInstalled: imageio-ffmpeg, matplotlib or pillow is missing.
        OSError: ffmpeg failed, or wrote fewer pictures than it was given.
    """
    if not trace.frames:
        raise ConfigError("Expected a trace with frames, got none. Record frames, or leave the video out.")
    if fps < 1:
        raise ConfigError(f"Expected fps >= 1, got {fps}.")
    write_mp4(compose_frames(trace, subtitle=subtitle), path, fps=fps, hold_s=_HOLD_S)


def compose_frames(trace: EpisodeTrace, *, subtitle: str = "") -> Iterator[Frame]:
    """Yields one picture of `VIDEO_SIZE` per frame of the trace, the reset frame first.

    Args:
        trace: A finished episode with `num_steps + 1` frames.
        subtitle: Line under the instruction.
    """
    if len(trace.frames) != trace.num_steps + 1:
        raise ConfigError(
            f"Expected {trace.num_steps + 1} frames (reset and one per step), got {len(trace.frames)}."
        )
    panel = draw_panel(trace, *_PANEL_BOX[2:])
    background = _background(trace, subtitle)
    for step, frame in enumerate(trace.frames):
        yield _compose(trace, panel, background, step, frame)


def _compose(trace: EpisodeTrace, panel: CurvePanel, background: Frame, step: int, frame: Frame) -> Frame:
    with needs("A picture", "video"):
        from PIL import Image, ImageDraw

    picture = background.copy()
    paste_frame(picture, frame, _FRAME_BOX)
    left, top, width, height = _PANEL_BOX
    curves = panel.at(step)
    if step not in (trace.critic_done_step, trace.sim_success_step):
        curves[int(height * 0.05) : int(height * 0.83), min(panel.columns[step], width - 1)] = _CURSOR_COLOR
    picture[top : top + height, left : left + width] = curves
    image = Image.fromarray(picture)
    _draw_readout(ImageDraw.Draw(image), trace, step)
    composed: Frame = np.array(image)
    return composed


def _background(trace: EpisodeTrace, subtitle: str) -> Frame:
    with needs("A picture", "video"):
        from PIL import Image, ImageDraw

    image = Image.new("RGB", VIDEO_SIZE, "white")
    draw = ImageDraw.Draw(image)
    left, top, size = _FRAME_BOX
    draw.rectangle((left, top, left + size - 1, top + size - 1), fill="#111827")
    _fitted_text(draw, (16, 12), trace.task, size=24, fill=COLORS["ink"], is_bold=True)
    _fitted_text(draw, (16, 50), subtitle, size=15, fill=COLORS["muted"])
    background: Frame = np.array(image)
    return background


def _draw_readout(draw: Any, trace: EpisodeTrace, step: int) -> None:
    left = _PANEL_BOX[0] + 8
    prob = next((s.success_prob for s in reversed(trace.steps[:step]) if s.success_prob is not None), None)
    value = next(
        (
            v
            for at, v in reversed(list(zip(trace.critic.value_frame_steps, trace.critic.values)))
            if at <= step
        ),
        None,
    )
    reward = sum(s.reward for s in trace.steps[:step])
    cells = (
        (f"step {step} / {trace.num_steps}", COLORS["ink"]),
        (f"success_prob {_number(prob)}", COLORS["success_prob"]),
        (f"value {_number(value)}", COLORS["value"]),
        (f"return {reward:.2f}", COLORS["ink"]),
    )
    for x, (text, color) in zip((0, 170, 362, 482), cells):
        draw.text((left + x, _READOUT_TOP), text, fill=color, font=load_font(16, is_bold=True))
    draw.text(
        (left, _READOUT_TOP + 34), _critic_line(trace, step), fill=COLORS["success_prob"], font=load_font(16)
    )
    draw.text((left, _READOUT_TOP + 62), _simulator_line(trace, step), fill=COLORS["sim"], font=load_font(16))


def _critic_line(trace: EpisodeTrace, step: int) -> str:
    if trace.mode == "eval":
        return "critic: not asked in eval mode"
    if trace.critic.name == "none":
        return "critic: none"
    done = trace.critic_done_step
    if done is not None and step >= done:
        return f"critic: DONE at step {done}"
    if step == trace.num_steps:
        return "critic: not done when the episode ended"
    return "critic: not done yet"


def _simulator_line(trace: EpisodeTrace, step: int) -> str:
    success = trace.sim_success_step
    if success is not None and step >= success:
        return f"simulator: SUCCESS at step {success}"
    if step == trace.num_steps:
        return "simulator: no success in this episode"
    return "simulator: no success yet"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _fitted_text(
    draw: Any, at: tuple[int, int], text: str, *, size: int, fill: str, is_bold: bool = False
) -> None:
    room = VIDEO_SIZE[0] - 2 * at[0]
    for smaller in range(size, 11, -1):
        if draw.textlength(text, font=load_font(smaller, is_bold=is_bold)) <= room:
            break
    while text and draw.textlength(text, font=load_font(smaller, is_bold=is_bold)) > room:
        text = text.rstrip("…")[:-1] + "…"
    draw.text(at, text, fill=fill, font=load_font(smaller, is_bold=is_bold))
