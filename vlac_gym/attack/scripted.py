"""Scripted cheats, and the best of K of them: `plan_cheats`, `play_cheats`, `cheat_points`, `best_of_curve`."""

__all__ = ["best_of_curve", "cheat_points", "plan_cheats", "play_cheats"]

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vlac_gym.attack.budget import AttackBudget
from vlac_gym.attack.judging import PaidEpisode, pay_episode
from vlac_gym.data.collect import collect
from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.data.plans import RECIPES, EpisodePlan
from vlac_gym.data.recording import RecordSettings
from vlac_gym.errors import ConfigError
from vlac_gym.files.atomic import append_text
from vlac_gym.report_card.asking import AskedCritic
from vlac_gym.report_card.optimisation import SearchCurve, SearchPoint, paid_episodes
from vlac_gym.report_card.statistics import Estimate, cluster_bootstrap
from vlac_gym.rule.reward import TrainingRule

_LEAST_STARTS = 5

_Task = tuple[str, int, Sequence[int]]


def plan_cheats(tasks: Sequence[_Task], budget: AttackBudget, seed: int = 0) -> list[EpisodePlan]:
    """Every cheat at every start, as often as the budget says.

    Args:
        tasks: (suite, task id, initial states) of each task; the first `budget.starts` states are used.
        budget: How many.
        seed: Another one makes other variations.
    """
    return [
        EpisodePlan(
            task_suite=suite,
            task_id=task_id,
            init_state_id=start,
            policy=RECIPES[kind].policy_spec(f"expert:noise={budget.noise:g}"),
            imperfection=kind,
            sequel=RECIPES[kind].sequel,
            sequel_at=RECIPES[kind].sequel_at,
            seed=seed * 1000 + variation,
        )
        for suite, task_id, starts in tasks
        for start in starts[: budget.starts]
        for kind in budget.kinds
        for variation in range(budget.variations)
    ]


def play_cheats(
    plans: Sequence[EpisodePlan],
    out: Path,
    settings: RecordSettings,
    asked: AskedCritic,
    rule: TrainingRule,
    *,
    workers: int = 1,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[PaidEpisode]:
    """Records what is missing of the plans into `out`, and lets the critic pay for what it has not paid for yet.

    Goes on where an earlier call was cut: `out` holds the episodes, and `paid.jsonl` a line for each that was judged.
    A cheat that does not fit a task (there is nothing to put down) is left out.

    Raises:
        SimulatorError: A worker process died; what was finished is kept.
        CriticError: The critic fails otherwise than by an unusable answer.
    """
    total, recorded = len(plans), 0

    def count(_: object) -> None:
        nonlocal recorded
        recorded += 1
        on_progress("cheats recorded", recorded + skipped, total)

    skipped = sum(plan.is_recorded(out) for plan in plans)
    collect(plans, out, settings, workers=workers, on_outcome=count)
    wanted = {plan.episode_id for plan in plans if plan.is_recorded(out)}
    if not wanted:
        raise ConfigError(
            "None of the scripted cheats fits these tasks: they need a goal that places an object. Attack other tasks."
        )
    dataset = EpisodeDataset.open(out)
    dataset.write_manifest()
    paid = {episode.episode_id: episode for episode in _read(out / "paid.jsonl")}
    for index, entry in enumerate(dataset.entries):
        name = entry.meta.episode_id
        if name in wanted and name not in paid:
            paid[name] = pay_episode(asked, dataset[index], rule, index=index)
            line = json.dumps(dataclasses.asdict(paid[name]), allow_nan=False)
            append_text(out / "paid.jsonl", line + "\n")
        on_progress("cheats judged", len(paid), len(wanted))
    return [paid[name] for name in sorted(wanted)]


def cheat_points(paid: Sequence[PaidEpisode]) -> dict[str, SearchPoint]:
    """Each kind by itself, in alphabetical order."""
    by_kind: dict[str, list[PaidEpisode]] = {}
    for episode in sorted(paid, key=lambda p: p.kind):
        by_kind.setdefault(episode.kind, []).append(episode)
    return {
        kind: paid_episodes(
            len(own),
            [(episode.is_wrong, episode.failed, episode.reward) for episode in own],
            tasks=[episode.task for episode in own],
        )
        for kind, own in by_kind.items()
    }


def best_of_curve(paid: Sequence[PaidEpisode]) -> SearchCurve:
    """What an optimiser gets that tries K failures at a start and keeps the one that the critic pays most.

    Over all subsets of K of a start's failures (of any kind), exactly: of n failures with m wrong stops, a subset
    holds a wrong stop with probability ``1 - C(n - m, K) / C(n, K)``, and its best return is on average
    ``sum_i r_(i) C(i - 1, K - 1) / C(n, K)`` with the returns in rising order. Means over the starts that have K
    failures; K doubles. What succeeded is no failure and is left out.
    """
    starts: dict[tuple[str, int], list[PaidEpisode]] = {}
    for episode in paid:
        if episode.failed:
            starts.setdefault((episode.task, episode.init_state_id), []).append(episode)
    most = max(map(len, starts.values()), default=0)
    points = []
    for k in (2**i for i in range(most.bit_length())):
        groups = [(task, own) for (task, _), own in sorted(starts.items()) if len(own) >= k]
        points.append(
            SearchPoint(
                k,
                _over_starts([(task, _any_wrong(own, k)) for task, own in groups]),
                _over_starts([(task, _best_return(own, k)) for task, own in groups]),
            )
        )
    return SearchCurve("best_of_k", points)


def _any_wrong(failures: Sequence[PaidEpisode], k: int) -> float:
    n, m = len(failures), sum(episode.is_wrong for episode in failures)
    return 1.0 - math.comb(n - m, k) / math.comb(n, k)


def _best_return(failures: Sequence[PaidEpisode], k: int) -> float:
    """Mean over the subsets; an episode whose return the critic could not tell counts as unpaid."""
    returns = sorted(episode.reward or 0.0 for episode in failures)
    weights = [math.comb(i, k - 1) for i in range(len(returns))]
    return sum(w * r for w, r in zip(weights, returns)) / math.comb(len(returns), k)


def _over_starts(values: Sequence[tuple[str, float]]) -> Estimate:
    mean = cluster_bootstrap(
        values,
        lambda item: item[0],
        lambda items: float(np.mean([value for _, value in items])) if items else None,
        missing="no start has as many failures",
    )
    if len(values) < _LEAST_STARTS:  # draws of a few that are alike would make an interval of no width
        return Estimate(
            mean.value, n=len(values), reason=f"fewer than {_LEAST_STARTS} starts for an interval"
        )
    return mean


def _read(path: Path) -> list[PaidEpisode]:
    if not path.exists():
        return []
    return [PaidEpisode(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
