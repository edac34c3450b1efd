"""What an evaluation's episodes add up to: `summarise`, `tasks_csv`, `episodes_csv`."""

__all__ = ["episodes_csv", "summarise", "tasks_csv"]

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlac_gym import __version__
from vlac_gym.evaluation.folder import EpisodeRecord
from vlac_gym.report_card.statistics import Estimate, rate

_FORMAT = 1


def summarise(
    settings: Mapping[str, Any], records: Sequence[EpisodeRecord], *, planned: int
) -> dict[str, Any]:
    """Content of `results.json`: of the suite, of each task, and of the critic that was asked.

    Args:
        settings: Of the run.
        records: Finished episodes, in the order of tasks and episodes.
        planned: How many there will be.
    """
    by_task: dict[int, list[EpisodeRecord]] = {}
    for record in records:
        by_task.setdefault(record.task_id, []).append(record)
    return {
        "format": _FORMAT,
        "vlac_gym": __version__,
        "status": "complete" if len(records) == planned else "partial",
        "planned_episodes": planned,
        "settings": dict(settings),
        "suite": _totals(records),
        "tasks": [
            {"task_id": task_id, "task": rows[0].task, **_totals(rows)} for task_id, rows in by_task.items()
        ],
        "critic": _audit(records),
    }


def tasks_csv(results: Mapping[str, Any]) -> str:
    """One row per task, and one for the suite."""
    suite = {"task_id": "all", "task": results["settings"]["task_suite"], **results["suite"]}
    rows = (
        [
            row["task_id"], row["task"], row["episodes"], row["lost"], row["successes"],
            *(row["success_rate"][key] for key in ("value", "low", "high")),
            row["mean_steps"], row["mean_steps_of_successes"],
        ]
        for row in (*results["tasks"], suite)
    )  # fmt: skip
    names = "task_id task episodes lost successes success_rate low high mean_steps mean_steps_of_successes"
    return _csv(names.split(), rows)


def episodes_csv(records: Iterable[EpisodeRecord]) -> str:
    """One row per episode."""
    said = ("success_prob_last", "success_prob_max", "done_step")
    rows = (
        [
            *(r.task_id, r.episode, r.init_state_id, r.seed, r.task),
            *(None if r.success is None else int(r.success), r.steps, r.lost),
            *((r.critic or {}).get(key) for key in said),
        ]
        for r in records
    )
    names = ["task_id", "episode", "init_state_id", "seed", "task", "success", "steps", "lost"]
    return _csv([*names, *(f"critic_{key}" for key in said)], rows)


def _csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue()


def _totals(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    judged = [record for record in records if record.success is not None]
    successes = [record for record in judged if record.success]
    return {
        "success_rate": rate(len(successes), len(judged), of="judged episodes").as_json(),
        "successes": len(successes),
        "episodes": len(judged),
        "lost": len(records) - len(judged),
        "mean_steps": _mean([record.steps for record in judged]),
        "mean_steps_of_successes": _mean([record.steps for record in successes]),
    }


def _audit(records: Sequence[EpisodeRecord]) -> dict[str, Any] | None:
    """How often the critic's done would have been wrong; None if none was asked."""
    asked = [r for r in records if r.critic is not None and r.success is not None]
    if not asked:
        return None
    answered = [
        (r.success, r.critic["done_step"] is not None) for r in asked if r.critic and not r.critic["error"]
    ]
    return {
        "false_positive_rate": _share([done for success, done in answered if not success], "failures"),
        "false_negative_rate": _share([not done for success, done in answered if success], "successes"),
        "failures": len(asked) - len(answered),
    }


def _share(hits: Sequence[bool], of: str) -> dict[str, Any]:
    estimate: Estimate = rate(sum(hits), len(hits), of=of)
    return estimate.as_json()


def _mean(numbers: Sequence[int]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
