"""A policy's training on the critic's reward as a search against it: `read_training_run`."""

__all__ = ["read_training_run"]

from collections.abc import Mapping
from pathlib import Path

from vlac_gym.errors import ConfigError
from vlac_gym.report_card.optimisation import SearchCurve, SearchPoint
from vlac_gym.report_card.statistics import Estimate, rate, refused
from vlac_gym.reporting.training_run import read_curves

_MAX_POINTS = 12


def read_training_run(folder: Path) -> SearchCurve:
    """The audit's numbers of a run of `examples/train_ppo.py`, or of any loop that writes `CriticAudit`'s metrics.

    A point is the audit's window at a line of the metrics, after as many episodes as `rollout/episodes` add up to; of
    many lines, twelve spread evenly, the last among them. The mean return of failures has no interval there.

    Raises:
        ConfigError: There are no such metrics.
    """
    played = 0.0
    points = []
    for metrics in read_curves(folder).metrics:
        played += metrics.get("rollout/episodes") or 0.0
        if metrics.get("critic/wrong_stops") is not None:
            points.append(_point(round(played), metrics))
    if not points:
        raise ConfigError(
            f"Expected a training run's metrics with the critic's audit (critic/wrong_stops) in {folder}, got none."
        )
    step = max(1, -(-len(points) // _MAX_POINTS))
    return SearchCurve(f"training {folder.name}", points[::-1][::step][::-1])


def _point(episodes: int, metrics: Mapping[str, float | None]) -> SearchPoint:
    counts = {
        name: round(metrics.get(f"critic/{name}") or 0.0)
        for name in ("right_stops", "wrong_stops", "missed_successes", "right_failures")
    }
    total = sum(counts.values())
    failures = counts["wrong_stops"] + counts["right_failures"]
    paid = metrics.get("critic/reward_of_failure")
    return SearchPoint(
        episodes,
        rate(counts["wrong_stops"], total, of="judged episodes"),
        refused("there are no failures") if paid is None else Estimate(paid, n=failures),
        rate(counts["right_stops"] + counts["missed_successes"], total, of="judged episodes"),
    )
