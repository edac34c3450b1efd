"""A policy's training on the critic's reward, or a search elsewhere, as searches against it: `read_training_run`,
`read_training_runs`, `read_wrong_stops`, `runs_alone`.
"""

__all__ = ["read_training_run", "read_training_runs", "read_wrong_stops", "runs_alone"]

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlac_gym.attack.same_settings import SETTINGS_FILE
from vlac_gym.critic.base import Critic
from vlac_gym.errors import ConfigError
from vlac_gym.report_card.mistakes import StripFrame
from vlac_gym.report_card.optimisation import SearchCurve, SearchPoint, UnderOptimisation, WrongStop
from vlac_gym.report_card.statistics import Estimate, rate, refused
from vlac_gym.reporting.training_run import read_curves

_MAX_POINTS = 12
_MAX_SHOWN = 2
"""Rounds of a search whose first wrong stop is shown."""


def read_training_runs(
    folders: Sequence[Path], critic: Critic | None = None
) -> tuple[list[SearchCurve], list[WrongStop]]:
    """The curve of each run, and the latest wrong stops in pictures of those that left some, as `vlac-gym attack` does.

    Args:
        folders: Of the runs.
        critic: Whom those are to be against that say against whom they are, as `vlac-gym attack`'s do; None for anyone.

    Raises:
        ConfigError: A folder has no such metrics, two have the same name, or one is of a search against another critic.
    """
    curves = [read_training_run(folder) for folder in folders]
    names = [curve.name for curve in curves]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"Expected runs in folders of different names, by which a card shows them, got two of {repeated[0]!r}. "
            "Rename one."
        )
    if critic is not None:
        _check_critic(folders, critic)
    return curves, [wrong for folder in folders for wrong in read_wrong_stops(folder, _MAX_SHOWN)]


def _check_critic(folders: Sequence[Path], critic: Critic) -> None:
    for path in (folder / SETTINGS_FILE for folder in folders):
        if not path.exists():
            continue
        attacked, own = (
            json.loads(path.read_text(encoding="utf-8"))["critic_fingerprint"],
            critic.describe().fingerprint,
        )
        if attacked != own:
            raise ConfigError(
                f"Expected runs against this critic (fingerprint {own}), got {path.parent} against another "
                f"({attacked}). Make a card of that critic, or leave the run out."
            )


def read_wrong_stops(folder: Path, count: int) -> list[WrongStop]:
    """The first wrong stop of each of the latest `count` rounds that have one; none of a folder without rounds."""
    found = []
    for path in sorted(folder.glob("round-*.json"), reverse=True)[:count]:
        row = json.loads(path.read_text(encoding="utf-8"))
        strip = [StripFrame(**{**f, "jpeg": base64.b64decode(f["jpeg"])}) for f in row["strip"]]
        found.append(WrongStop("filtered_imitation", row["text"], row["episode_id"], strip))
    return found


def runs_alone(critic: Critic, folders: Sequence[Path]) -> UnderOptimisation:
    """A card's section of these runs, where nothing else is searched, as on a machine without LIBERO.

    Raises:
        ConfigError: As `read_training_runs`.
    """
    curves, worst = read_training_runs(folders, critic)
    facts = {
        "critic_fingerprint": critic.describe().fingerprint,
        "training_runs": [str(folder) for folder in folders],
        "not_searched": ["scripted cheats", "best of K", "filtered imitation of this card's own"],
    }
    return UnderOptimisation(facts=facts, cheats={}, curves=curves, worst=worst)


def read_training_run(folder: Path) -> SearchCurve:
    """The audit's numbers of a run of `examples/train_ppo.py` or `vlac-gym attack`, or of any loop that writes
    `CriticAudit`'s metrics.

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
    kind = "filtered imitation" if (folder / SETTINGS_FILE).exists() else "training"
    return SearchCurve(f"{kind} {folder.name}", points[::-1][::step][::-1])


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
