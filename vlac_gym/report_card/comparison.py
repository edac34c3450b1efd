"""Two report cards side by side, and what fell from one to the other: `Change`, `compare_cards`, `write_comparison`.

A number **fell** if it lies beyond its old 95 % interval on the worse side, **rose** if beyond it on the better side.
"""

__all__ = ["Change", "compare_cards", "fallen", "read_card", "write_comparison"]

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vlac_gym.errors import ConfigError
from vlac_gym.files.atomic import write_json, write_text
from vlac_gym.report_card.names import HEADLINES, label_of
from vlac_gym.reporting.rendering import render_template

_LOWER_IS_BETTER = (
    "false_positive_rate",
    "miss_rate",
    "delay_steps_median",
    "wrong_stops",
    "reward_of_failure",
)

ChangeKind = Literal["fell", "rose", "within its interval", "not comparable"]


@dataclass(frozen=True)
class Change:
    """One number of two cards.

    Attributes:
        label: Its name for readers.
        before: Of the first card; None if it has none.
        low: Lower end of its interval there, or None.
        high: Upper end, or None.
        after: Of the second card; None if it has none.
        verdict: See the module; `not comparable` without a number on both sides and an interval on the first.
    """

    label: str
    before: float | None
    low: float | None
    high: float | None
    after: float | None
    verdict: ChangeKind


def read_card(path: Path) -> dict[str, Any]:
    """A card's content, from its `card.json`.

    Raises:
        ConfigError: It is none.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["headline"], content["sections"], content["critic"]["spec"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ConfigError(f"Expected a report card's card.json at {path}, but it can't be read: {e!r}") from e
    return content


def compare_cards(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The headline, and where both cards were attacked, every wrong stop and reward of failures of the same name."""
    changes = [
        _change(label, name, before["headline"].get(name), after["headline"].get(name))
        for name, label in HEADLINES.items()
    ]
    attacked = dict(_attacked(after))
    changes += [
        _change(label, metric, estimate, attacked[label, metric])
        for (label, metric), estimate in _attacked(before)
        if (label, metric) in attacked
    ]
    return changes


def fallen(changes: Sequence[Change]) -> list[Change]:
    """Those that fell."""
    return [change for change in changes if change.verdict == "fell"]


def write_comparison(before: Mapping[str, Any], after: Mapping[str, Any], out: Path) -> list[Change]:
    """Writes `comparison.json` and `comparison.html` into `out`, which is there; returns the changes.

    Raises:
        DependencyNotInstalled: jinja2 is missing; the numbers are written.
    """
    changes = compare_cards(before, after)
    specs = {"before": before["critic"]["spec"], "after": after["critic"]["spec"]}
    write_json(out / "comparison.json", {"critics": specs, "changes": [asdict(change) for change in changes]})
    page = render_template("card_comparison.html", specs=specs, changes=changes, fallen=fallen(changes))
    write_text(out / "comparison.html", page)
    return changes


def _attacked(card: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Mapping[str, Any]]]:
    """((label, metric), estimate) of each number of the section `under_optimisation`."""
    for search, rows in card["sections"].get("under_optimisation", {}).items():
        for row, estimates in rows.items():
            for metric in ("wrong_stops", "reward_of_failure"):
                where = f"{label_of(search).split(',')[0]}, {label_of(row)}"
                yield (f"{label_of(metric)}: {where}", metric), estimates[metric]


def _change(
    label: str, name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> Change:
    was, now = (None if e is None else e["value"] for e in (before, after))
    low, high = (None, None) if before is None else (before["low"], before["high"])
    verdict: ChangeKind = "within its interval"
    if was is None or now is None or low is None or high is None:
        verdict = "not comparable"
    elif now < low or now > high:
        is_worse = (now > high) == (name in _LOWER_IS_BETTER)
        verdict = "fell" if is_worse else "rose"
    return Change(label, was, low, high, now, verdict)
