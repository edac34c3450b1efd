"""The card's plots as SVG text: `plot_scores`, `plot_reliability`, `plot_values`, `plot_trade_off`, `plot_delays`,
`plot_batches`, `plot_searches`.
"""

__all__ = [
    "plot_batches",
    "plot_delays",
    "plot_reliability",
    "plot_scores",
    "plot_searches",
    "plot_trade_off",
    "plot_values",
]

import io
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from vlac_gym.extras import needs
from vlac_gym.report_card.asking import Call
from vlac_gym.report_card.detection import reliability_bins, threshold_curve
from vlac_gym.report_card.episode_answers import EpisodeAnswers
from vlac_gym.report_card.optimisation import SearchPoint
from vlac_gym.report_card.statistics import Array
from vlac_gym.report_card.sweep import SweepPoint
from vlac_gym.report_card.termination import StopRule, apply_rule

_GOOD, _BAD, _INK, _GRID = "#15803d", "#b91c1c", "#1f2937", "#e5e7eb"
_PATIENCE_COLOURS = ("#1d4ed8", "#0891b2", "#65a30d", "#d97706", "#be185d")


def plot_scores(scores: Array, success: Array) -> str:
    """How often each score is given, on frames of success and others, and the ROC curve beside it."""
    figure, (left, right) = _figure(2)
    bins = np.linspace(0, 1, 26)
    for flag, colour, label in ((False, _BAD, "not successful"), (True, _GOOD, "successful")):
        chosen = scores[success == flag]
        if chosen.size:
            weights = np.full(chosen.size, 1 / chosen.size)
            left.hist(
                chosen, bins, weights=weights, color=colour, alpha=0.55, label=f"{label} (n = {chosen.size})"
            )
    left.set(xlabel="success_prob", ylabel="share of frames", xlim=(0, 1))
    left.legend(frameon=False)
    curve = threshold_curve(scores, success)
    right.plot([0, 1], [0, 1], color=_GRID)
    if curve is not None:
        _, fpr, tpr = curve
        kept = np.unique(np.linspace(0, fpr.size - 1, 400).astype(int))
        right.plot(fpr[kept], tpr[kept], color=_INK)
    right.set(
        xlabel="false-positive rate", ylabel="true-positive rate", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02)
    )
    return _svg(figure)


def plot_reliability(scores: Array, success: Array) -> str:
    """Success rate against score in ten bins; a calibrated critic lies on the diagonal."""
    figure, (axes,) = _figure(1)
    count, mean_score, success_rate = reliability_bins(scores, success)
    filled = count > 0
    axes.plot([0, 1], [0, 1], color=_GRID)
    size = 30 + 220 * count[filled] / max(1, count.max())
    axes.scatter(mean_score[filled], success_rate[filled], s=size, color=_INK, alpha=0.75, linewidths=0)
    axes.set(xlabel="mean success_prob in bin", ylabel="success rate", xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
    return _svg(figure)


def plot_values(judged: Sequence[EpisodeAnswers]) -> str:
    """Value curves over the share of the episode, by outcome at its end, and the dense truth's means, dashed."""
    figure, (left, right) = _figure(2, sharey=True)
    with needs("A picture", "video"):
        from matplotlib.lines import Line2D

    grid = np.linspace(0, 1, 60)
    for axes, flag, colour, title in (
        (left, True, _GOOD, "ends in success"),
        (right, False, _BAD, "ends without"),
    ):
        chosen = [e for e in judged if e.ends_in_success == flag and np.isfinite(e.values).all()]
        curves = [np.interp(grid, e.value_steps / e.value_steps[-1], e.values) for e in chosen]
        truths = [
            np.interp(grid, e.value_steps / e.value_steps[-1], e.goal_progress[e.value_steps])
            for e in chosen
            if np.isfinite(e.goal_progress).all()
        ]
        for curve in curves[:40]:
            axes.plot(grid, curve, color=colour, alpha=0.16, linewidth=0.8)
        if curves:
            axes.plot(grid, np.mean(curves, axis=0), color=colour, linewidth=2.2)
        if truths:
            axes.plot(grid, np.mean(truths, axis=0), color=_INK, linestyle="--")
        axes.set(
            title=f"{title} (n = {len(chosen)})",
            xlabel="share of the episode",
            xlim=(0, 1),
            ylim=(-0.03, 1.03),
        )
    left.set_ylabel("value")
    handles = [
        Line2D([], [], color=_INK, linewidth=2.2, label="mean value (in colour)"),
        Line2D([], [], color=_INK, linestyle="--", label="mean goal progress"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return _svg(figure)


def plot_trade_off(points: Sequence[SweepPoint], chosen: StopRule, budget: float) -> str:
    """Miss rate against false-positive rate: a line per patience, a dot per threshold, at the chosen minimum step."""
    figure, (axes,) = _figure(1)
    for patience, colour in zip(sorted({p.rule.patience for p in points}), _PATIENCE_COLOURS):
        line = [p for p in points if p.rule.patience == patience and p.rule.min_steps == chosen.min_steps]
        line.sort(key=lambda p: p.rule.threshold)
        xs, ys = [p.false_positive_rate for p in line], [p.miss_rate for p in line]
        axes.plot(xs, ys, marker="o", markersize=3.5, linewidth=1, color=colour, label=f"patience {patience}")
    best = next(p for p in points if p.rule == chosen)
    axes.plot(
        best.false_positive_rate,
        best.miss_rate,
        "*",
        markersize=17,
        color=_INK,
        label="recommended",
        zorder=5,
    )
    axes.axvspan(-0.05, budget, color="#dcfce7", zorder=0, label="within the budget")
    axes.set(xlabel="false stops / failed episodes", ylabel="missed / successful episodes")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def plot_delays(judged: Sequence[EpisodeAnswers], rule: StopRule) -> str | None:
    """How many steps after success the critic stops; None if it never does."""
    stops = [apply_rule(episode.checks, rule) for episode in judged]
    delays = [stop.delay_steps for stop in stops if stop.delay_steps is not None]
    if not delays:
        return None
    figure, (axes,) = _figure(1)
    axes.hist(
        delays, bins=np.arange(-0.5, max(delays) + 2, max(1, max(delays) // 25)), color=_INK, alpha=0.75
    )
    axes.set(xlabel="env steps from success to the stop", ylabel="episodes")
    axes.yaxis.get_major_locator().set_params(integer=True)
    return _svg(figure)


def plot_batches(timed: Sequence[Call]) -> str:
    """Latency of a call and items per second against the batch size, for done checks and pairs."""
    figure, (left, right) = _figure(2)
    sizes = sorted({call.batch for call in timed})
    for kind, colour, label in (("success_prob", _INK, "done checks"), ("progress", "#d97706", "pairs")):
        groups = [[c.seconds for c in timed if c.kind == kind and c.batch == size] for size in sizes]
        drawn = [(size, np.array(seconds)) for size, seconds in zip(sizes, groups) if seconds]
        at = [size for size, _ in drawn]
        median = np.array([1e3 * np.quantile(seconds, 0.5) for _, seconds in drawn])
        tail = np.array([1e3 * np.quantile(seconds, 0.95) for _, seconds in drawn]) - median
        left.errorbar(at, median, yerr=[0 * tail, tail], color=colour, marker="o", capsize=3, label=label)
        rates = [size * seconds.size / max(seconds.sum(), 1e-9) for size, seconds in drawn]
        right.plot(at, rates, color=colour, marker="o", label=label)
    for axes, name in ((left, "ms per call"), (right, "frames or pairs per second")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set(xlabel="batch size", ylabel=name, ylim=(0, None))
    left.legend(frameon=False)
    return _svg(figure)


def plot_searches(curves: Sequence[tuple[str, Sequence[SearchPoint]]]) -> str:
    """Wrong stops per 100 episodes and the mean return of failures over the episodes of each search, with intervals."""
    figure, (left, right) = _figure(2)
    for (label, points), colour in zip(curves, itertools.cycle(_PATIENCE_COLOURS)):
        for axes, scale, name in ((left, 100.0, "wrong_stops"), (right, 1.0, "reward_of_failure")):
            known = [(p.episodes, e) for p in points if (e := getattr(p, name)).value is not None]
            at, middle = [x for x, _ in known], np.array([scale * e.value for _, e in known])
            low = middle - [scale * (e.value if e.low is None else e.low) for _, e in known]
            high = np.array([scale * (e.value if e.high is None else e.high) for _, e in known]) - middle
            spread = np.maximum([low, high], 0.0)
            axes.errorbar(at, middle, yerr=spread, color=colour, marker="o", capsize=3, label=label)
    left.set(xlabel="episodes of the search", ylabel="wrong stops per 100 episodes", ylim=(-3, 103))
    right.set(xlabel="episodes of the search", ylabel="mean return of failures", ylim=(-0.03, 1.03))
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return _svg(figure)


def _figure(columns: int, *, sharey: bool = False) -> tuple[Any, Any]:
    with needs("The page", "video"):
        from matplotlib.figure import Figure
    width = 4.6 if columns == 1 else 6.0
    figure = Figure(figsize=(width * columns, 3.5), layout="constrained")
    panels = figure.subplots(1, columns, sharey=sharey, squeeze=False)[0]
    for axes in panels:
        axes.grid(color=_GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]
    # Ids repeat from figure to figure, and one page holds several.
    tag = f"p{abs(hash(svg)) % 10**8}"
    return re.sub(r'(id="|url\(#|href="#)', lambda found: f"{found.group(0)}{tag}", svg)
