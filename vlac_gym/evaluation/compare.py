"""Runs over the same starts, or report cards, side by side: `compare`, `write_comparison`."""

__all__ = ["compare", "read_entry", "write_comparison"]

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlac_gym import __version__
from vlac_gym.errors import ConfigError
from vlac_gym.evaluation.folder import EpisodeRecord, EvalRun, read_run
from vlac_gym.evaluation.page import percent
from vlac_gym.files.atomic import write_json, write_text
from vlac_gym.report_card.names import HEADLINES
from vlac_gym.report_card.statistics import paired_difference, rate
from vlac_gym.reporting.rendering import render_template

_FORMAT = 1

Card = Mapping[str, Any]
"""Content of a report card's `card.json`."""

_Key = tuple[int, int, int]


def read_entry(path: Path) -> EvalRun | Card:
    """Reads the folder of an evaluation, or a report card (its folder or its `card.json`).

    Raises:
        ConfigError: It is neither.
    """
    card = path if path.is_file() else path / "card.json"
    if not card.is_file():
        return read_run(path)
    try:
        content: dict[str, Any] = json.loads(card.read_text(encoding="utf-8"))
        _ = content["headline"], content["critic"]["spec"]
    except (KeyError, TypeError, ValueError) as e:
        raise ConfigError(f"{card} is not a report card: {e!r}.") from e
    return content


def compare(paths: Sequence[Path]) -> dict[str, Any]:
    """Compares each evaluation with the first one, and puts the headlines of cards side by side.

    Evaluations are paired by task, episode and initial state; only starts that both judged count.

    Args:
        paths: Two or more; see `read_entry`.

    Returns:
        `runs`, `settings` that differ, `pairs`, `tasks` and `cards`; JSON-serialisable.

    Raises:
        ConfigError: Fewer than two, one that is neither, or evaluations without a common start.
    """
    if len(paths) < 2:
        raise ConfigError(f"Expected two or more runs or cards to compare, got {len(paths)}.")
    entries = {_letter(i): (path, read_entry(path)) for i, path in enumerate(paths)}
    runs = {name: entry for name, (_, entry) in entries.items() if isinstance(entry, EvalRun)}
    cards = {name: (path, entry) for name, (path, entry) in entries.items() if not isinstance(entry, EvalRun)}
    _check_suites(runs)
    return {
        "format": _FORMAT,
        "vlac_gym": __version__,
        "runs": [_facts(name, run) for name, run in runs.items()],
        "settings": _differing(runs),
        "pairs": _pairs(runs),
        "tasks": _tasks(runs),
        "cards": [
            {"name": name, "path": str(path), "critic": card["critic"]["spec"], "headline": card["headline"]}
            for name, (path, card) in cards.items()
        ],
    }


def write_comparison(content: Mapping[str, Any], out: Path) -> None:
    """Writes `compare.json`, then `index.html`.

    Raises:
        DependencyNotInstalled: jinja2 is missing; the numbers are written.
    """
    write_json(out / "compare.json", content)
    page = render_template(
        "comparison.html",
        content=content,
        headlines=HEADLINES,
        percent=percent,
        points=_points,
        card=_card_value,
    )
    write_text(out / "index.html", page)


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"run {index + 1}"


def _check_suites(runs: Mapping[str, EvalRun]) -> None:
    suites = {name: run.settings["task_suite"] for name, run in runs.items()}
    if len(set(suites.values())) > 1:
        named = ", ".join(f"{name}: {suite}" for name, suite in suites.items())
        raise ConfigError(f"Expected evaluations of one suite, whose starts can be paired, got {named}.")


def _facts(name: str, run: EvalRun) -> dict[str, Any]:
    return {
        "name": name,
        "path": str(run.path),
        "policy": run.settings["policy"],
        "task_suite": run.settings["task_suite"],
        "success_rate": _rate(run.records),
    }


def _differing(runs: Mapping[str, EvalRun]) -> dict[str, dict[str, Any]]:
    """Settings in which the runs differ, besides the policy: setting -> run -> value."""
    names = sorted({key for run in runs.values() for key in run.settings} - {"policy"})
    found = {key: {name: run.settings.get(key) for name, run in runs.items()} for key in names}
    return {key: values for key, values in found.items() if len({json.dumps(v) for v in values.values()}) > 1}


def _pairs(runs: Mapping[str, EvalRun]) -> list[dict[str, Any]]:
    """Every run against the first."""
    names = list(runs)
    pairs = []
    for name in names[1:]:
        pair = _paired(runs[names[0]].records, runs[name].records)
        if pair["difference"]["n"] == 0:
            raise ConfigError(
                f"Expected evaluations with common starts, got none in {runs[names[0]].path} and {runs[name].path}."
            )
        pairs.append({"first": names[0], "second": name, **pair})
    return pairs


def _tasks(runs: Mapping[str, EvalRun]) -> list[dict[str, Any]]:
    texts = {record.task_id: record.task for run in runs.values() for record in run.records}
    rows = []
    for task_id, text in sorted(texts.items()):
        of_task = {name: [r for r in run.records if r.task_id == task_id] for name, run in runs.items()}
        first, *others = of_task
        rows.append(
            {
                "task_id": task_id,
                "task": text,
                "rates": {name: _rate(records) for name, records in of_task.items()},
                "pairs": {name: _paired(of_task[first], of_task[name]) for name in others},
            }
        )
    return rows


def _paired(first: Sequence[EpisodeRecord], second: Sequence[EpisodeRecord]) -> dict[str, Any]:
    ours, theirs = _judged(first), _judged(second)
    common = sorted(ours.keys() & theirs.keys())
    outcomes = [(bool(ours[key].success), bool(theirs[key].success)) for key in common]
    same_seeds = all(ours[key].seed == theirs[key].seed for key in common)
    return {**asdict(paired_difference(outcomes)), "same_seeds": same_seeds}


def _judged(records: Sequence[EpisodeRecord]) -> dict[_Key, EpisodeRecord]:
    return {(r.task_id, r.episode, r.init_state_id): r for r in records if r.success is not None}


def _rate(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    judged = [record for record in records if record.success is not None]
    return rate(sum(bool(r.success) for r in judged), len(judged), of="judged episodes").as_json()


def _points(value: float | None) -> str:
    """A difference of two rates, in percentage points."""
    return "–" if value is None else f"{100 * value:+.1f}"


def _card_value(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "–"
    if estimate["interval"] == "wilson":
        return f"{estimate['value']:.1%} ({estimate['low']:.1%} … {estimate['high']:.1%})"
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} … {estimate['high']:.3f})"
