"""Draws the score of a recorded episode: `save_score_png` (one plot) and `write_score_video` (an annotated mp4)."""

__all__ = ["save_score_png", "score_pictures", "write_score_video"]

import io
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.episode_score import EpisodeScore
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.frames.files import ANNOTATED_MARK
from vlac_gym.reporting.curves import COLORS, CurvePanel
from vlac_gym.reporting.drawing import load_font, paste_frame
from vlac_gym.reporting.files import write_bytes
from vlac_gym.reporting.mp4 import write_mp4
from vlac_gym.types import Frame

_DPI = 100
_STRIP_FRAMES = 6
_REGRESS = "#b91c1c"
_PROGRESS = "#0f766e"

_VIDEO_SIZE = (1120, 560)  # multiples of 16, so that no encoder rescales
_FRAME_BOX = (16, 88, 448)
_PANEL_BOX = (480, 80, 624, 380)
_CURSOR = (156, 163, 175)
_HOLD_S = 1.5  # the last picture stands still for this long, so that the end can be read


def save_score_png(score: EpisodeScore, frames: Sequence[Frame], path: Path, *, subtitle: str = "") -> None:
    """Writes one PNG: a strip of frames above `success_prob` and value, pairwise progress below.

    Args:
        score: The critic's answers about `frames`.
        frames: The episode.
        path: Target; replaced if it exists.
        subtitle: Line under the task.

    Raises:
        DependencyNotInstalled: matplotlib is missing.
    """
    width, height = 1100, 690
    figure = _figure(width, height)
    figure.text(0.012, 1 - 28 / height, textwrap.shorten(score.task, 110), fontsize=12.5, color=COLORS["ink"])
    figure.text(0.012, 1 - 52 / height, subtitle, fontsize=9, color=COLORS["muted"])
    _add_strip(figure, frames, width, height)
    _add_curves(figure, score, (0.045, 0.245, 0.94, 0.35), (0.045, 0.085, 0.94, 0.12), with_curves=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Comment": ANNOTATED_MARK})
    write_bytes(path, buffer.getvalue())


def write_score_video(
    score: EpisodeScore, frames: Sequence[Frame], path: Path, *, fps: float = 20.0, subtitle: str = ""
) -> None:
    """Writes one mp4 (H.264), whole or not at all, marked as annotated: each frame beside the curves up to it.

    Args:
        score: The critic's answers about `frames`.
        frames: The episode.
        path: Target, ending in `.mp4`; replaced if it exists.
        fps: Pictures per second, above 0.
        subtitle: Line under the task.

    Raises:
        ConfigError: `fps` is not above 0, or the frames are not the scored ones.
        DependencyNotInstalled: imageio-ffmpeg, matplotlib or pillow is missing.
        OSError: ffmpeg failed.
    """
    if not fps > 0:
        raise ConfigError(f"Expected fps above 0, got {fps!r}.")
    write_mp4(score_pictures(score, frames, subtitle=subtitle), path, fps=fps, hold_s=_HOLD_S)


def score_pictures(score: EpisodeScore, frames: Sequence[Frame], *, subtitle: str = "") -> Iterator[Frame]:
    """Yields the video's pictures, one per frame."""
    if len(frames) != score.num_frames:
        raise ConfigError(f"Expected the {score.num_frames} frames that were scored, got {len(frames)}.")
    panel = _panel(score)
    background = _background(score, subtitle)
    for number, frame in enumerate(frames):
        yield _compose(score, panel, background, number, frame)


def _compose(score: EpisodeScore, panel: CurvePanel, background: Frame, number: int, frame: Frame) -> Frame:
    with needs("A picture", "video"):
        from PIL import Image, ImageDraw

    picture = background.copy()
    paste_frame(picture, frame, _FRAME_BOX)
    left, top, width, height = _PANEL_BOX
    curves = panel.at(number)
    curves[int(height * 0.03) : int(height * 0.88), min(int(panel.columns[number]), width - 1)] = _CURSOR
    picture[top : top + height, left : left + width] = curves
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    prob = _latest(score.check_frames, score.success_prob, number)
    value = _latest(score.value_frames, score.values, number)
    change = _latest(score.value_frames[1:], score.progress, number)
    done = score.first_done_frame
    verdict = (
        f"critic: DONE at frame {done}" if done is not None and number >= done else "critic: not done yet"
    )
    if done is None and number == score.num_frames - 1:
        verdict = "critic: not done at any frame"
    cells = (
        (0, 0, f"frame {number} / {score.num_frames - 1}", COLORS["ink"]),
        (170, 0, f"success_prob {_number(prob)}", COLORS["success_prob"]),
        (352, 0, f"value {_number(value)}", COLORS["value"]),
        (470, 0, f"progress {_number(change, signed=True)}", _sign_color(change)),
        (0, 34, verdict, COLORS["success_prob"]),
    )
    for x, y, text, color in cells:
        draw.text((left + 8 + x, top + height + 14 + y), text, fill=color, font=load_font(16, is_bold=y == 0))
    composed: Frame = np.array(image)
    return composed


def _panel(score: EpisodeScore) -> CurvePanel:
    width, height = _PANEL_BOX[2:]
    pictures: list[Frame] = []
    for with_curves in (True, False):
        figure = _figure(width, height)
        axes = _add_curves(
            figure, score, (0.075, 0.38, 0.895, 0.59), (0.075, 0.16, 0.895, 0.15), with_curves=with_curves
        )
        figure.canvas.draw()
        pictures.append(np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[:, :, :3]))
    numbers = np.arange(score.num_frames)
    pixels = axes.transData.transform(np.stack([numbers, np.zeros_like(numbers)], axis=1))[:, 0]
    return CurvePanel(full=pictures[0], blank=pictures[1], columns=np.rint(pixels).astype(np.int64))


def _add_curves(
    figure: Any,
    score: EpisodeScore,
    box: tuple[float, float, float, float],
    lower_box: tuple[float, float, float, float],
    *,
    with_curves: bool,
) -> Any:
    """Adds curves above and bars of progress below; returns the upper axes."""
    upper, lower = figure.add_axes(box), figure.add_axes(lower_box)
    last = max(score.num_frames - 1, 1)
    for axes, limits, ticks in (
        (upper, (-0.02, 1.05), [0, 0.25, 0.5, 0.75, 1.0]),
        (lower, (-1.05, 1.05), [-1, 0, 1]),
    ):
        axes.set_xlim(-0.01 * last, last * 1.02)
        axes.set_ylim(*limits)
        axes.set_yticks(ticks)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color=COLORS["grid"], linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=9, colors=COLORS["muted"], length=0)
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set_visible(False)
    upper.tick_params(labelbottom=False)
    upper.axhline(score.done_threshold, color=COLORS["success_prob"], linewidth=0.9, linestyle=(0, (2, 3)))
    lower.axhline(0.0, color=COLORS["muted"], linewidth=0.8)
    lower.set_xlabel("frame", fontsize=9, color=COLORS["muted"], labelpad=2)
    if with_curves:
        _plot(upper, lower, score)
    _add_legend(figure)
    return upper


def _plot(upper: Any, lower: Any, score: EpisodeScore) -> None:
    look: dict[str, Any] = {"clip_on": False, "marker": "o" if score.num_frames == 1 else ""}
    upper.plot(score.check_frames, score.success_prob, color=COLORS["success_prob"], linewidth=2.2, **look)
    upper.plot(
        score.value_frames,
        score.values,
        color=COLORS["value"],
        linewidth=1.8,
        marker="o",
        markersize=3.2,
        clip_on=False,
    )
    if score.first_done_frame is not None:
        upper.axvline(score.first_done_frame, color=COLORS["success_prob"], linewidth=1.8)
    starts, ends = np.array(score.value_frames[:-1]), np.array(score.value_frames[1:])
    if len(ends):
        colors = [_sign_color(float(change)) for change in score.progress]
        lower.bar(starts, score.progress, width=(ends - starts) * 0.92, align="edge", color=colors)


def _add_legend(figure: Any) -> None:
    with needs("A picture", "video"):
        from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label="success_prob", color=COLORS["success_prob"], linewidth=2.2),
        Line2D([], [], label="threshold", color=COLORS["success_prob"], linewidth=0.9, linestyle=(0, (2, 3))),
        Line2D([], [], label="value", color=COLORS["value"], linewidth=1.8, marker="o", markersize=3.2),
        Line2D([], [], label="progress of a pair", color=_PROGRESS, linewidth=6),
        Line2D([], [], label="regress", color=_REGRESS, linewidth=6),
    ]
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=5,
        frameon=False,
        fontsize=9,
        labelcolor=COLORS["ink"],
        borderaxespad=0.2,
    )


def _add_strip(figure: Any, frames: Sequence[Frame], width: int, height: int) -> None:
    size, top = 166, height - 66
    picks = np.unique(np.rint(np.linspace(0, len(frames) - 1, _STRIP_FRAMES)).astype(int))
    for column, pick in enumerate(picks):
        left = 14 + column * (size + 15)
        axes = figure.add_axes((left / width, (top - size) / height, size / width, size / height))
        axes.imshow(frames[pick], interpolation="lanczos")
        axes.set_axis_off()
        label = f"frame {pick}"
        figure.text(left / width, (top - size - 16) / height, label, fontsize=9, color=COLORS["muted"])


def _figure(width: int, height: int) -> Any:
    with needs("A plot", "video"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _background(score: EpisodeScore, subtitle: str) -> Frame:
    with needs("A picture", "video"):
        from PIL import Image, ImageDraw

    image = Image.new("RGB", _VIDEO_SIZE, "white")
    draw = ImageDraw.Draw(image)
    left, top, size = _FRAME_BOX
    draw.rectangle((left, top, left + size - 1, top + size - 1), fill="#111827")
    task = textwrap.shorten(score.task, 80, placeholder="…")
    draw.text((16, 12), task, fill=COLORS["ink"], font=load_font(22, is_bold=True))
    subtitle = textwrap.shorten(subtitle, 130, placeholder="…")
    draw.text((16, 50), subtitle, fill=COLORS["muted"], font=load_font(15))
    background: Frame = np.array(image)
    return background


def _latest(numbers: Sequence[int], answers: Any, now: int) -> float | None:
    """The last answer about a frame up to `now`."""
    count = int(np.searchsorted(numbers, now, side="right"))
    return float(answers[count - 1]) if count else None


def _number(value: float | None, *, signed: bool = False) -> str:
    return "–" if value is None else f"{value:+.2f}" if signed else f"{value:.2f}"


def _sign_color(change: float | None) -> str:
    return COLORS["ink"] if change is None else _REGRESS if change < 0 else _PROGRESS
