"""`vlac-gym tasks`: lists LIBERO's suites, or the tasks of one, without starting a simulator."""

__all__ = ["Args", "run"]

import json
from collections.abc import Sequence
from dataclasses import dataclass

from vlac_gym.envs.libero.tasks import LiberoTask, list_suites, list_tasks


@dataclass(frozen=True, kw_only=True)
class Args:
    """Which suite to list."""

    task_suite: str | None = None
    """Suite whose tasks to list; default: list the suites."""
    json: bool = False
    """Print JSON instead of a table."""


def run(args: Args) -> int:
    """Runs the command; see `vlac-gym tasks --help`."""
    rows = _suites() if args.task_suite is None else _tasks(list_tasks(args.task_suite))
    if args.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    print(_table(rows))
    if args.task_suite is None:
        print("\nvlac-gym tasks --task-suite NAME lists the tasks of a suite.")
    return 0


def _suites() -> list[dict[str, str | int]]:
    rows: list[dict[str, str | int]] = []
    for suite in list_suites():
        tasks = list_tasks(suite)
        first = tasks[0]
        rows.append(
            {
                "task_suite": suite,
                "tasks": len(tasks),
                "max_episode_steps": first.max_episode_steps,
                "init_states": first.num_init_states,
            }
        )
    return rows


def _tasks(tasks: Sequence[LiberoTask]) -> list[dict[str, str | int]]:
    return [
        {
            "task_id": task.task_id,
            "init_states": task.num_init_states,
            "max_episode_steps": task.max_episode_steps,
            "task": task.language,
        }
        for task in tasks
    ]


def _table(rows: Sequence[dict[str, str | int]]) -> str:
    columns = list(rows[0])
    widths = {c: max(len(c), *(len(str(row[c])) for row in rows)) for c in columns}
    lines = ["  ".join(c.ljust(widths[c]) for c in columns).rstrip()]
    for row in rows:
        cells = [
            str(row[c]).rjust(widths[c]) if isinstance(row[c], int) else str(row[c]).ljust(widths[c])
            for c in columns
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
