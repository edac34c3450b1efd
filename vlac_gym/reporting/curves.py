"""Draws an episode's curves with matplotlib: `save_curves_png` and `CurvePanel` for videos.

Figures are built as objects on an Agg canvas; pyplot's global state, and the caller's backend, stay untouched.
"""

__all__ = ["COLORS", "CurvePanel", "draw_panel", "save_curves_png"]

import io
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.frames.files import ANNOTATED_MARK
from vlac_gym.reporting.files import write_bytes
from vlac_gym.reporting.trace import EpisodeTrace
from vlac_gym.types import Frame

COLORS = {
    "success_prob": "#2563eb",
    "value": "#d97706",
    "sim": "#15803d",
    "muted": "#6b7280",
    "ink": "#111827",
    "grid": "#e5e7eb",
}
"""Curve name -> sRGB colour, the same in plots, videos and pages."""

_DPI = 100
_STRIP_FRAMES = 5


@dataclass(frozen=True)
class CurvePanel:
    """Curves as two pictures of one size, so that a video can uncover them column by column.

    Attributes:
        full: Axes with every curve and mark.
        blank: The same axes without them.
        columns: int (T + 1,); pixel column of env step 0..T.
    """

    full: Frame
    blank: Frame
    columns: np.ndarray[Any, np.dtype[np.int64]]

    def at(self, step: int) -> Frame:
        """The panel as it looks when the episode has reached `step`; a fresh array."""
        column = int(self.columns[step]) + 2
        picture = self.blank.copy()
        picture[:, :column] = self.full[:, :column]
        return picture


def draw_panel(trace: EpisodeTrace, width: int, height: int) -> CurvePanel:
    """Draws the panel that a video uncovers.

    Args:
        trace: A finished episode.
        width: Pixels, at least 200.
        height: Pixels, at least 150.

    Raises:
        ConfigError: The panel is too small to hold the axes.
        DependencyNotInstalled: matplotlib is missing.
    """
    if width < 200 or height < 150:
        raise ConfigError(f"Expected a panel of at least 200x150 pixels, got {width}x{height}.")
    pictures: list[Frame] = []
    for with_curves in (True, False):
        figure = _new_figure(width, height)
        axes = figure.add_axes((0.075, 0.17, 0.895, 0.79))
        _style_axes(axes, trace)
        if with_curves:
            _plot(axes, trace)
        _add_legend(figure, trace, is_short=True)
        pictures.append(_rgb(figure))
    steps = np.arange(trace.num_steps + 1)
    pixels = axes.transData.transform(np.stack([steps, np.zeros_like(steps)], axis=1))[:, 0]
    return CurvePanel(full=pictures[0], blank=pictures[1], columns=np.rint(pixels).astype(np.int64))


def save_curves_png(trace: EpisodeTrace, path: Path, *, title: str = "") -> None:
    """Writes one PNG, whole or not at all: a strip of frames (if the trace has them) above the curves.

    Args:
        trace: A finished episode.
        path: Target; replaced if it exists.
        title: Second line under the task text.

    Raises:
        DependencyNotInstalled: matplotlib is missing.
    """
    width, strip_height = 1100, 250 if trace.frames else 0
    height = 430 + strip_height
    figure = _new_figure(width, height)
    figure.text(0.012, 1 - 28 / height, textwrap.shorten(trace.task, 110), fontsize=12.5, color=COLORS["ink"])
    figure.text(0.012, 1 - 52 / height, title, fontsize=9, color=COLORS["muted"])
    if trace.frames:
        _add_strip(figure, trace, top=height - 66, size=204, width=width, height=height)
    axes = figure.add_axes((0.045, 74 / height, 0.94, 254 / height))
    _style_axes(axes, trace)
    _plot(axes, trace)
    _label_marks(axes, trace)
    _add_legend(figure, trace)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Comment": ANNOTATED_MARK})
    write_bytes(path, buffer.getvalue())


def _new_figure(width: int, height: int) -> Any:
    with needs("A plot", "video"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _rgb(figure: Any) -> Frame:
    figure.canvas.draw()
    rgba = np.asarray(figure.canvas.buffer_rgba())
    picture: Frame = np.ascontiguousarray(rgba[:, :, :3])
    return picture


def _style_axes(axes: Any, trace: EpisodeTrace) -> None:
    axes.set_xlim(0, trace.num_steps * 1.02)
    axes.set_ylim(-0.02, 1.05)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color=COLORS["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=COLORS["muted"], length=0)
    axes.set_xlabel("env step", fontsize=9, color=COLORS["muted"], labelpad=2)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(COLORS["muted"])
    if trace.critic.threshold is not None and trace.mode != "eval":
        axes.axhline(
            trace.critic.threshold, color=COLORS["success_prob"], linewidth=0.9, linestyle=(0, (2, 3))
        )


def _plot(axes: Any, trace: EpisodeTrace) -> None:
    progress = [(s.step, s.goal_progress) for s in trace.steps if s.goal_progress is not None]
    if progress:
        axes.plot(*zip(*progress, strict=True), color=COLORS["sim"], linewidth=1.3, linestyle=(0, (5, 2)))
    if trace.critic.values:
        axes.plot(
            trace.critic.value_frame_steps,
            trace.critic.values,
            color=COLORS["value"],
            linewidth=1.8,
            marker="o",
            markersize=3.2,
            clip_on=False,
        )
    steps, probs = trace.success_probs
    if steps:
        axes.plot(steps, probs, color=COLORS["success_prob"], linewidth=2.2, clip_on=False)
    for step, color, style in _marks(trace):
        axes.axvline(step, color=color, linewidth=1.8, linestyle=style)


def _marks(trace: EpisodeTrace) -> list[tuple[int, str, Any]]:
    marks: list[tuple[int, str, Any]] = []
    if trace.critic_done_step is not None:
        marks.append((trace.critic_done_step, COLORS["success_prob"], "-"))
    if trace.sim_success_step is not None:
        # Dashes let the critic's line show through when both fall on one step.
        marks.append((trace.sim_success_step, COLORS["sim"], (0, (4, 3))))
    return marks


def _label_marks(axes: Any, trace: EpisodeTrace) -> None:
    texts = (
        (trace.critic_done_step, "critic: done at step {}", COLORS["success_prob"], 17),
        (trace.sim_success_step, "simulator: success at step {}", COLORS["sim"], 4),
    )
    for step, text, color, offset in texts:
        if step is None:
            continue
        is_right = step > trace.num_steps / 2
        axes.annotate(
            text.format(step),
            xy=(step, 1.05),
            xytext=(0, offset),
            textcoords="offset points",
            ha="right" if is_right else "left",
            fontsize=9,
            color=color,
            annotation_clip=False,
        )


def _add_legend(figure: Any, trace: EpisodeTrace, *, is_short: bool = False) -> None:
    with needs("A picture", "video"):
        from matplotlib.lines import Line2D

    unpaid = ", not in the reward" if trace.critic.values_for == "plot" else ""
    judge = "privileged critic" if trace.critic.is_privileged else "critic"
    prob, value = (
        ("success_prob", "value") if is_short else (f"success_prob ({judge})", f"value ({judge}{unpaid})")
    )
    looks: list[tuple[bool, str, dict[str, Any]]] = [
        (bool(trace.success_probs[0]), prob, {"color": COLORS["success_prob"], "linewidth": 2.2}),
        (
            trace.critic.threshold is not None and trace.mode != "eval",
            "threshold" if is_short else f"threshold {trace.critic.threshold}",
            {"color": COLORS["success_prob"], "linewidth": 0.9, "linestyle": (0, (2, 3))},
        ),
        (bool(trace.critic.values), value, {"color": COLORS["value"], "linewidth": 1.8, "marker": "o"}),
        (
            any(s.goal_progress is not None for s in trace.steps),
            "goal progress (simulator)",
            {"color": COLORS["sim"], "linewidth": 1.3, "linestyle": (0, (5, 2))},
        ),
    ]
    handles = [Line2D([], [], label=label, markersize=3.2, **look) for shown, label, look in looks if shown]
    if handles:
        figure.legend(
            handles=handles,
            loc="lower center",
            ncols=len(handles),
            frameon=False,
            fontsize=9,
            labelcolor=COLORS["ink"],
            borderaxespad=0.2,
        )


def _add_strip(figure: Any, trace: EpisodeTrace, *, top: int, size: int, width: int, height: int) -> None:
    count = min(_STRIP_FRAMES, len(trace.frames))
    picks = np.rint(np.linspace(0, len(trace.frames) - 1, count)).astype(int)
    for column, pick in enumerate(picks):
        left = 14 + column * (size + 13)
        box = (left / width, (top - size) / height, size / width, size / height)
        axes = figure.add_axes(box)
        axes.imshow(trace.frames[pick], interpolation="lanczos")
        axes.set_axis_off()
        figure.text(
            left / width, (top - size - 17) / height, f"step {pick}", fontsize=9, color=COLORS["muted"]
        )
