"""Writes the parquet files that verl's trainers read: one row per episode start.

    python -m verl_env_adapter.verl.dataset --out data --suite libero_spatial --val-starts 10

`build_rows` makes the rows, `write_parquet` the files.
"""

__all__ = ["build_rows", "main", "write_parquet"]

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from verl_env_adapter.verl.phase import AGENT_NAME
from vlac_gym.envs.libero.tasks import LiberoTask, get_task, list_tasks
from vlac_gym.errors import ConfigError, VlacGymError
from vlac_gym.extras import needs


def build_rows(
    tasks: Sequence[LiberoTask], init_state_ids: Iterable[int], mode: str, agent_name: str = AGENT_NAME
) -> list[dict[str, Any]]:
    """One row per task and initial state, tasks alternating so that any prefix holds all of them.

    Args:
        tasks: Tasks of one suite.
        init_state_ids: Initial states of each.
        mode: `train` or `eval`; it must be the phase that the file is for.
        agent_name: The agent loop's name.

    Raises:
        ConfigError: Unknown mode, or an initial state that a task lacks.
    """
    if mode not in ("train", "eval"):
        raise ConfigError(f"Expected mode 'train' or 'eval', got {mode!r}.")
    starts = list(init_state_ids)
    for task in tasks:
        missing = [start for start in starts if not 0 <= start < task.num_init_states]
        if missing:
            raise ConfigError(
                f"{task.suite} task {task.task_id} has initial states 0..{task.num_init_states - 1}, got {missing}."
            )
    pairs = [(task, start) for start in starts for task in tasks]
    return [_row(i, task, start, mode, agent_name) for i, (task, start) in enumerate(pairs)]


def write_parquet(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes rows that verl's `RLHFDataset` reads.

    Raises:
        DependencyNotInstalled: pyarrow is missing.
    """
    with needs("A parquet file", "verl"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = _parser().parse_args(argv)
    try:
        tasks = [get_task(args.suite, i) for i in args.tasks] if args.tasks else list(list_tasks(args.suite))
        count = min(task.num_init_states for task in tasks)
        if not 0 < args.val_starts < count:
            raise ConfigError(f"Expected --val-starts in 1..{count - 1}, got {args.val_starts}.")
        border = count - args.val_starts
        files = {
            "train": build_rows(tasks, range(border), "train", args.agent_name),
            "val": build_rows(tasks, range(border, count), "eval", args.agent_name),
        }
        for name, rows in files.items():
            write_parquet(rows, args.out / f"{name}.parquet")
            print(f"{args.out / name}.parquet: {len(rows)} rows")  # noqa: T201 (a command)
    except VlacGymError as e:
        print(f"verl_dataset: {e}", file=sys.stderr)  # noqa: T201 (a command)
        return 2
    return 0


def _row(index: int, task: LiberoTask, init_state_id: int, mode: str, agent_name: str) -> dict[str, Any]:
    return {
        # verl demands a prompt; the agent loop asks with each picture anew and does not read it.
        "prompt": [{"role": "user", "content": task.language}],
        "data_source": f"vlac_gym/{task.suite}",
        "agent_name": agent_name,
        # V1's validation reads this column; the reward comes from the env.
        "reward_model": {"style": "env", "ground_truth": ""},
        "extra_info": {
            "index": index,
            "mode": mode,
            "task_suite": task.suite,
            "task_id": task.task_id,
            "init_state_id": init_state_id,
        },
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m verl_env_adapter.verl.dataset", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for train.parquet and val.parquet")
    parser.add_argument(
        "--suite", default="libero_spatial", help="task suite; must be the settings' env.suite"
    )
    parser.add_argument("--tasks", type=int, nargs="*", help="task ids; default: all of the suite")
    parser.add_argument(
        "--val-starts",
        type=int,
        default=10,
        help="initial states per task kept for validation; the last ones",
    )
    parser.add_argument("--agent-name", default=AGENT_NAME, help="the agent loop's name")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
