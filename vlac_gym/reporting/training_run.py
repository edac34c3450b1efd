"""What a training run's folder shows: `write_training_report` makes learning.png and index.html of its metrics."""

__all__ = ["LearningCurves", "read_curves", "write_training_report"]

import io
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.atomic import write_bytes, write_text
from vlac_gym.metrics.audit import AUDIT_METRIC_NAMES
from vlac_gym.metrics.episodes import METRIC_NAMES
from vlac_gym.metrics.intervals import wilson_interval
from vlac_gym.reporting.rendering import render_template

_EVAL, _TRAIN, _REWARD, _WRONG, _MISSED = "#15803d", "#86b79a", "#1d4ed8", "#b91c1c", "#d97706"
_TABLE = (
    "env/success_rate",
    "rollout/reward_mean",
    "critic/done_rate",
    "critic/wrong_stops_per_100",
    "critic/missed_per_100",
    "critic/contrast",
    "critic/proxy_gap",
    "critic/alarm",
)


@dataclass(frozen=True)
class LearningCurves:
    """A run's metrics over its env steps, in order.

    Attributes:
        steps: Env steps at each line of the metrics file.
        metrics: Of each line; a metric may be missing or None.
    """

    steps: tuple[int, ...]
    metrics: tuple[Mapping[str, float | None], ...]

    def of(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric, where it is known."""
        known = [(s, value) for s, m in zip(self.steps, self.metrics) if (value := m.get(name)) is not None]
        return [s for s, _ in known], [value for _, value in known]

    def first_and_last(self, name: str) -> tuple[float | None, float | None]:
        """The metric's first and last known value; None if there is none."""
        _, values = self.of(name)
        return (values[0], values[-1]) if values else (None, None)

    def evaluations(self) -> list[tuple[int, float, float, float, int]]:
        """(env steps, success rate, low, high, episodes) of each evaluation, with Wilson's 95 % interval."""
        found = []
        for step, metrics in zip(self.steps, self.metrics):
            rate, episodes = metrics.get("eval/success_rate"), metrics.get("eval/episodes")
            if rate is not None and episodes is not None:
                low, high = wilson_interval(round(rate * episodes), round(episodes))
                found.append((step, rate, low, high, round(episodes)))
        return found


def read_curves(folder: Path) -> LearningCurves:
    """The metrics that a `MetricsWriter` wrote into `folder`.

    Raises:
        ConfigError: There is no metrics file, or it holds no line.
    """
    path = folder / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as e:
        raise ConfigError(f"Expected a training run's metrics in {path}, but they can't be read: {e}") from e
    if not rows:
        raise ConfigError(f"Expected a training run's metrics in {path}, which is empty.")
    return LearningCurves(tuple(row["step"] for row in rows), tuple(row["metrics"] for row in rows))


def write_training_report(folder: str | Path) -> Path:
    """Draws `folder/learning.png` and writes `folder/index.html` of the run's `metrics.jsonl` and `config.json`.

    Returns:
        The page.

    Raises:
        ConfigError: The folder holds no metrics.
        DependencyNotInstalled: matplotlib or jinja2 is missing.
    """
    folder = Path(folder)
    curves = read_curves(folder)
    config_path = folder / "config.json"
    config = json.loads(config_path.read_text(encoding="utf-8")) if config_path.exists() else {}
    title = (
        f"{config.get('algorithm', 'training').upper()} on the reward of {config.get('critic', 'a critic')}"
    )
    write_bytes(folder / "learning.png", _draw(curves, title, config))
    meanings = METRIC_NAMES | AUDIT_METRIC_NAMES
    page = render_template(
        "training.html",
        title=title,
        config=config,
        evaluations=curves.evaluations(),
        rows=[(name, meanings[name], *curves.first_and_last(name)) for name in _TABLE],
        times=_time_shares(curves),
        env_steps=curves.steps[-1],
        is_privileged=_is_privileged(config),
        is_toy="reach:" in str(config.get("tasks", "")),
        alarms=[s for s, value in zip(*curves.of("critic/alarm")) if value],
    )
    write_text(folder / "index.html", page)
    return folder / "index.html"


def _is_privileged(config: Mapping[str, Any]) -> bool:
    specs = str(config.get("critic", "")).removeprefix("ensemble:").split("|")
    return any("oracle" in spec.partition(":")[0] for spec in specs)


def _time_shares(curves: LearningCurves) -> list[tuple[str, float, float]]:
    """(part, seconds, share) of the measured parts of all iterations."""
    parts = {
        name: sum(curves.of(f"time/{name}")[1]) for name in ("env", "critic", "policy", "update", "eval")
    }
    total = sum(parts.values())
    return [(name, seconds, seconds / total) for name, seconds in parts.items()] if total else []


def _draw(curves: LearningCurves, title: str, config: Mapping[str, Any]) -> bytes:
    with needs("A picture", "video"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 8.4), layout="constrained")
    success, reward, errors = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 2))
    _draw_success(success, curves)
    steps, values = curves.of("rollout/reward_mean")
    reward.plot(steps, values, color=_REWARD, label="mean return per episode, from the critic")
    for name, style in (("critic/reward_of_success", "--"), ("critic/reward_of_failure", ":")):
        steps, values = curves.of(name)
        label = f"paid to {'succeeded' if 'success' in name else 'failed'} episodes (latest window)"
        reward.plot(steps, values, style, color=_REWARD, linewidth=1, label=label)
    for name, colour, label in (
        ("critic/wrong_stops_per_100", _WRONG, "said done, simulator saw no success"),
        ("critic/missed_per_100", _MISSED, "simulator saw success, not said done"),
    ):
        errors.plot(*curves.of(name), color=colour, label=label)
    for step, value in zip(*curves.of("critic/alarm")):
        if value:
            errors.axvline(step, color=_WRONG, alpha=0.2, linewidth=4)
    reward.set(ylabel="critic's reward")
    errors.set(ylabel="per 100 episodes", xlabel="env steps", ylim=(0, None))
    for axes in (success, reward, errors):
        axes.grid(color="#e5e7eb", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8.5, loc="best")
    tasks = str(config.get("tasks", "?")).replace(",", ", ")
    notes = [f"tasks {tasks}; preset {config.get('reward_preset', '?')}"]
    notes += ["privileged critic: reads the simulator"] if _is_privileged(config) else []
    notes += ["toy env without physics"] if "reach:" in tasks else []
    figure.suptitle(f"{title}\n{textwrap.fill('; '.join(notes), 110)}", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _draw_success(axes: Any, curves: LearningCurves) -> None:
    axes.plot(
        *curves.of("env/success_rate"), color=_TRAIN, linewidth=1, label="training episodes, with noise"
    )
    if evaluations := curves.evaluations():
        steps, rates, lows, highs, episodes = zip(*evaluations)
        below = [max(0.0, rate - low) for rate, low in zip(rates, lows)]
        above = [max(0.0, high - rate) for rate, high in zip(rates, highs)]
        label = f"held-out starts, no noise ({min(episodes)} episodes, 95 % Wilson interval)"
        axes.errorbar(steps, rates, yerr=(below, above), color=_EVAL, marker="o", capsize=3, label=label)
    axes.set(ylabel="simulator success", ylim=(-0.03, 1.03))
