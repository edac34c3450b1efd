"""What a search against the critic came to, as the card shows it: `UnderOptimisation`, `SearchCurve`, `SearchPoint`.

`vlac_gym.attack` searches; this is its result, a section of the card. A **wrong stop** is an episode that the critic
ends as done before the simulator ever saw success; a **failure** is an episode without the simulator's success until
its end, wrong stops included.
"""

__all__ = [
    "SearchCurve",
    "SearchPoint",
    "UnderOptimisation",
    "WrongStop",
    "optimisation_section",
    "paid_episodes",
]

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlac_gym.report_card.mistakes import StripFrame
from vlac_gym.report_card.sections import Section
from vlac_gym.report_card.statistics import Estimate, cluster_bootstrap, rate


@dataclass(frozen=True)
class SearchPoint:
    """Some episodes of a search.

    Attributes:
        episodes: How many the search had played when they were over.
        wrong_stops: Share of them that were wrong stops.
        reward_of_failure: Mean return of the failures.
        simulator_success: Share that were no failures; None where nothing but failures was looked at.
    """

    episodes: int
    wrong_stops: Estimate
    reward_of_failure: Estimate
    simulator_success: Estimate | None = None


@dataclass(frozen=True)
class SearchCurve:
    """What one optimiser found.

    Attributes:
        name: A key of the card's `METRICS`, or a name of the user's.
        points: In the order of the search.
    """

    name: str
    points: Sequence[SearchPoint]


@dataclass(frozen=True)
class WrongStop:
    """The pictures of an episode that was paid for nothing.

    Attributes:
        kind: What deceived the critic.
        text: One sentence.
        episode_id: Which one.
        strip: Its last pictures before the stop.
    """

    kind: str
    text: str
    episode_id: str
    strip: Sequence[StripFrame]


@dataclass(frozen=True)
class UnderOptimisation:
    """The result of an attack.

    Attributes:
        facts: Budget, rule, tasks and episodes; JSON-serialisable.
        cheats: Of each scripted way to fail.
        curves: Of each search.
        worst: The worst wrong stops.
    """

    facts: Mapping[str, Any]
    cheats: Mapping[str, SearchPoint]
    curves: Sequence[SearchCurve]
    worst: Sequence[WrongStop]


def paid_episodes(
    episodes: int, outcomes: Iterable[tuple[bool, bool, float | None]], *, tasks: Sequence[str] | None = None
) -> SearchPoint:
    """The point of some episodes.

    Args:
        episodes: How many the search had played.
        outcomes: (wrong stop, failure, return) of each; None for a return that the critic could not tell.
        tasks: Of each, whose failures are drawn together for the interval; None for one task.
    """
    rows = list(outcomes)
    named = tasks or [""] * len(rows)
    paid = [(task, row[2]) for task, row in zip(named, rows, strict=True) if row[1] and row[2] is not None]
    return SearchPoint(
        episodes,
        rate(sum(wrong for wrong, _, _ in rows), len(rows), of="episodes"),
        cluster_bootstrap(paid, lambda item: item[0], _mean_return, missing="there are no failures"),
        rate(sum(not failed for _, failed, _ in rows), len(rows), of="episodes"),
    )


def optimisation_section(found: UnderOptimisation) -> Section:
    """The table of the card."""
    section: dict[str, Any] = {}
    if found.cheats:
        section["cheats"] = {kind: _row(point) for kind, point in found.cheats.items()}
    for curve in found.curves:
        section[curve.name] = {f"after_{p.episodes}_episodes": _row(p) for p in curve.points}
    return section


def _row(point: SearchPoint) -> dict[str, Estimate]:
    return {name: value for name, value in vars(point).items() if isinstance(value, Estimate)}


def _mean_return(paid: Sequence[tuple[str, float | None]]) -> float | None:
    returns = [value for _, value in paid if value is not None]
    return sum(returns) / len(returns) if returns else None
