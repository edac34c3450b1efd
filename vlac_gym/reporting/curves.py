"""Draws an episode's curves with matplotlib: `save_curves_png` and `CurvePanel` for videos.

Figures are built as objects on an Agg canvas; pyplot's global state, and the caller's backend, stay untouched.
"""

__all__ = ["CurvePanel", "draw_panel", "save_curves_png"]

import io
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.atomic import write_bytes
from vlac_gym.frames.files import ANNOTATED_MARK
from vlac_gym.reporting.episode_picture import COLORS, EpisodePicture, progress_color
from vlac_gym.types import Frame

_DPI = 100
_STRIP_FRAMES = 5
_PNG_SPAN = (0.06, 0.925)  # left edge and width of the axes, as shares of the figure's
_ACTION_ROW = 20  # pixels
_LOOKS: dict[str, dict[str, Any]] = {
    "success_prob": {"color": COLORS["success_prob"], "linewidth": 2.2},
    "threshold": {"color": COLORS["success_prob"], "linewidth": 0.9, "linestyle": (0, (2, 3))},
    "value": {"color": COLORS["value"], "linewidth": 1.8, "marker": "o", "markersize": 3.2},
    "goal_progress": {"color": COLORS["sim"], "linewidth": 1.3, "linestyle": (0, (5, 2))},
}
"""How each line is drawn, in axes and legends."""


@dataclass(frozen=True)
class CurvePanel:
    """Curves as two pictures of one size, so that a video can uncover them column by column.

    Attributes:
        full: Axes with every curve and mark.
        blank: The same axes without them.
        columns: int (T + 1,); pixel column of frame 0..T.
        rows: Top and bottom pixel row of the axes.
    """

    full: Frame
    blank: Frame
    columns: np.ndarray[Any, np.dtype[np.int64]]
    rows: tuple[int, int]

    def at(self, now: int) -> Frame:
        """The panel as it looks when the episode has reached frame `now`; a fresh array."""
        column = int(self.columns[now]) + 2
        picture = self.blank.copy()
        picture[:, :column] = self.full[:, :column]
        return picture


def draw_panel(picture: EpisodePicture, width: int, height: int) -> CurvePanel:
    """Draws the panel that a video uncovers.

    Args:
        picture: What to draw.
        width: Pixels, at least 200.
        height: Pixels, at least 150.

    Raises:
        ConfigError: The panel is too small to hold the axes.
        DependencyNotInstalled: matplotlib is missing.
    """
    if width < 200 or height < 150:
        raise ConfigError(f"Expected a panel of at least 200x150 pixels, got {width}x{height}.")
    drawn: list[Frame] = []
    top, bottom = round(0.04 * height), round(0.17 * height)
    for with_curves in (True, False):
        figure = _new_figure(width, height)
        axes = _add_axes(figure, (0.075, 0.895), (top, height - bottom), picture, with_curves=with_curves)
        _add_legend(figure, picture, is_short=True)
        drawn.append(_rgb(figure))
    numbers = np.arange(picture.last + 1)
    pixels = axes[0].transData.transform(np.stack([numbers, np.zeros_like(numbers)], axis=1))[:, 0]
    columns = np.minimum(np.rint(pixels).astype(np.int64), width - 1)
    return CurvePanel(full=drawn[0], blank=drawn[1], columns=columns, rows=(top, height - bottom))


def save_curves_png(picture: EpisodePicture, path: Path, *, title: str = "") -> None:
    """Writes one PNG, whole or not at all: a strip of frames above the curves, and the actions below.

    Frames and actions are left out where the episode has none.

    Args:
        picture: What to draw.
        path: Target; replaced if it exists.
        title: Second line under the task text.

    Raises:
        DependencyNotInstalled: matplotlib is missing.
    """
    task_lines = textwrap.wrap(picture.task, 110, max_lines=2, placeholder=" …")
    header = 22 * max(0, len(task_lines) - 1)
    strip_height, bars_height = 250 if picture.frames else 0, 60 if picture.progress else 0
    actions_height = 22 + _ACTION_ROW * len(picture.actions) if picture.actions else 0
    width, height = 1100, 430 + header + strip_height + bars_height + actions_height
    figure = _new_figure(width, height)
    for number, line in enumerate(task_lines):
        y = 1 - (28 + 22 * number) / height
        figure.text(0.012, y, line, fontsize=12.5, color=COLORS["ink"])
    figure.text(0.012, 1 - (52 + header) / height, title, fontsize=9, color=COLORS["muted"])
    if picture.frames:
        _add_strip(figure, picture, top=height - header - 66, size=204, width=width, height=height)
    bottom = height - 74
    curves = (header + strip_height + 102, bottom - actions_height)
    upper, *_ = all_axes = _add_axes(figure, _PNG_SPAN, curves, picture)
    if picture.actions:
        all_axes[-1].set_xlabel("")
        _add_actions(figure, picture, (bottom - actions_height + 22, bottom))
    _label_marks(upper, picture)
    _add_legend(figure, picture)
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


def _add_axes(
    figure: Any,
    span: tuple[float, float],
    rows: tuple[int, int],
    picture: EpisodePicture,
    *,
    with_curves: bool = True,
) -> list[Any]:
    """Axes with the curves and, below them, axes with bars of progress if the picture has some.

    Args:
        figure: Where to.
        span: Left edge and width, as shares of the figure's.
        rows: Top and bottom edge, pixels from the figure's top.
        picture: What to draw.
        with_curves: Draw them; without, the axes stay empty.
    """
    (left, width), (top, bottom) = span, rows
    total = figure.bbox.height
    bars = round(0.22 * (bottom - top)) if picture.progress else 0
    gap = 16 if bars else 0
    boxes = [(top, bottom - bars - gap), (bottom - bars, bottom)][: 2 if bars else 1]
    all_axes = [figure.add_axes((left, 1 - low / total, width, (low - high) / total)) for high, low in boxes]
    for axes in all_axes:
        _style_axes(axes, picture)
    upper, lower = all_axes[0], all_axes[-1]
    _label_steps(lower, picture)
    upper.set_ylim(-0.02, 1.05)
    upper.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    if picture.threshold is not None:
        upper.axhline(picture.threshold, **_LOOKS["threshold"])
    if bars:
        upper.tick_params(labelbottom=False)
        lower.set_ylim(-1.05, 1.05)
        lower.set_yticks([-1, 0, 1])
        lower.axhline(0.0, color=COLORS["muted"], linewidth=0.8)
    if with_curves:
        _plot_curves(upper, picture)
        if bars:
            _plot_bars(lower, picture)
    return all_axes


def _add_actions(figure: Any, picture: EpisodePicture, rows: tuple[int, int]) -> None:
    """One row per dimension of the actions, all on one scale, below the curves and aligned with them."""
    (left, width), (top, bottom) = _PNG_SPAN, rows
    total = figure.bbox.height
    axes = figure.add_axes((left, 1 - bottom / total, width, (bottom - top) / total))
    _style_axes(axes, picture)
    largest = _largest_action(picture)
    _label_steps(axes, picture, f" · each row of actions spans ±{largest:.2g}")
    names = list(picture.actions)
    for row, series in enumerate(picture.actions.values()):
        axes.axhline(row, color=COLORS["grid"], linewidth=0.8)
        ends = [series.at[0] - 1, *series.at]  # the action of step t leads from t - 1 to t
        sizes = np.array([series.values[0], *series.values]) / largest
        axes.plot(ends, row - 0.42 * sizes, drawstyle="steps-pre", color=COLORS["ink"], linewidth=1.1)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelsize=7.5)
    axes.grid(visible=False, axis="y")


def _largest_action(picture: EpisodePicture) -> float:
    sizes = np.abs([series.values for series in picture.actions.values()])
    largest = float(sizes[np.isfinite(sizes)].max(initial=0.0))
    return largest or 1.0


def _label_steps(axes: Any, picture: EpisodePicture, note: str = "") -> None:
    unit = "env step" if picture.unit == "step" else picture.unit
    axes.set_xlabel(unit + note, fontsize=9, color=COLORS["muted"], labelpad=2)


def _style_axes(axes: Any, picture: EpisodePicture) -> None:
    axes.set_xlim(0, max(picture.last, 1) * 1.02)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color=COLORS["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=COLORS["muted"], length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(COLORS["muted"])


def _plot_curves(axes: Any, picture: EpisodePicture) -> None:
    for name, series in (
        ("goal_progress", picture.goal_progress),
        ("value", picture.values),
        ("success_prob", picture.success_prob),
    ):
        if series:
            dot = {"marker": "o"} if len(series) == 1 else {}
            axes.plot(series.at, series.values, clip_on=name == "goal_progress", **_LOOKS[name] | dot)
    for verdict in picture.verdicts:
        if verdict.at is not None:
            axes.axvline(verdict.at, color=COLORS[verdict.color], linewidth=1.8, linestyle=verdict.linestyle)


def _plot_bars(axes: Any, picture: EpisodePicture) -> None:
    starts, ends = np.array(picture.values.at[:-1]), np.array(picture.progress.at)
    colors = [progress_color(change) for change in picture.progress.values]
    axes.bar(starts, picture.progress.values, width=(ends - starts) * 0.92, align="edge", color=colors)


def _label_marks(axes: Any, picture: EpisodePicture) -> None:
    for verdict, offset in zip(reversed(picture.verdicts), (4, 17)):
        if verdict.at is None:
            continue
        is_right = verdict.at > picture.last / 2
        axes.annotate(
            verdict.label,
            xy=(verdict.at, 1.05),
            xytext=(0, offset),
            textcoords="offset points",
            ha="right" if is_right else "left",
            fontsize=9,
            color=COLORS[verdict.color],
            annotation_clip=False,
        )


def _add_legend(figure: Any, picture: EpisodePicture, *, is_short: bool = False) -> None:
    with needs("A picture", "video"):
        from matplotlib.lines import Line2D

    whose = f" ({picture.critic})" if picture.critic and not is_short else ""
    notes = ", ".join(filter(None, (picture.critic, picture.value_note)))
    bar = {"linewidth": 6, "linestyle": "-"}
    entries: list[tuple[bool, str, dict[str, Any]]] = [
        (bool(picture.success_prob), f"success_prob{whose}", _LOOKS["success_prob"]),
        (
            picture.threshold is not None,
            "threshold" if is_short else f"threshold {picture.threshold}",
            _LOOKS["threshold"],
        ),
        (bool(picture.values), f"value ({notes})" if notes and not is_short else "value", _LOOKS["value"]),
        (bool(picture.goal_progress), "goal progress (simulator)", _LOOKS["goal_progress"]),
        (bool(picture.progress), "progress of a pair", {"color": COLORS["progress"], **bar}),
        (bool(picture.progress), "regress", {"color": COLORS["regress"], **bar}),
    ]
    handles = [Line2D([], [], label=label, **look) for is_shown, label, look in entries if is_shown]
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


def _add_strip(figure: Any, picture: EpisodePicture, *, top: int, size: int, width: int, height: int) -> None:
    picks = np.unique(np.rint(np.linspace(0, picture.last, _STRIP_FRAMES)).astype(int))
    for column, pick in enumerate(picks):
        left = 14 + column * (size + 13)
        box = (left / width, (top - size) / height, size / width, size / height)
        axes = figure.add_axes(box)
        axes.imshow(picture.frames[pick], interpolation="lanczos")
        axes.set_axis_off()
        label = f"{picture.unit} {pick}"
        figure.text(left / width, (top - size - 17) / height, label, fontsize=9, color=COLORS["muted"])
