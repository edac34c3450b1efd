"""Measures the scripted expert on LIBERO: success, steps and the oracle's value order, task by task.

    python benchmarks/expert_table.py --suites libero_spatial libero_10 --out docs/experts.md

Success is the simulator's, from the official initial states, within the suite's step limit; nothing is
rendered but a tiny picture at each reset. VOC (value-order correlation) is Spearman's rank correlation between
`goal_progress` and time over
the frames of one episode, averaged over the task's episodes. With ``--out``, the table replaces what is
between the two marker lines of that file.
"""

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.envs.libero.tasks import get_task, list_tasks
from vlac_gym.metrics.progress import value_order_correlation
from vlac_gym.policies import make_policy

BEGIN, END = "<!-- expert table: begin -->", "<!-- expert table: end -->"
SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """One task's numbers; `failed_init_states` are those that the expert did not solve."""

    suite: str
    task_id: int
    task: str
    episodes: int
    successes: int
    steps_mean: float
    steps_max: int
    step_limit: int
    voc_mean: float
    voc_min: float
    failed_init_states: tuple[int, ...]
    steps_per_second: float


def main() -> int:
    """Runs the episodes, prints each task's line as it comes, and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suites", nargs="+", default=list(SUITES))
    parser.add_argument("--tasks", nargs="+", type=int, help="task ids; all by default")
    parser.add_argument("--init-states", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--policy", default="expert")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-repeat-solves", action="store_true", help="of LiberoEnv: repeat_solves=False")
    parser.add_argument("--json", type=Path, help="append each task's numbers to this file, one line each")
    parser.add_argument("--from-json", type=Path, help="run nothing; make the table from such a file")
    parser.add_argument("--out", type=Path, help="Markdown file with the two marker lines")
    args = parser.parse_args()
    results = [] if args.from_json is None else read_results(args.from_json)
    if args.from_json is None:
        for suite in args.suites:
            ids = [task.task_id for task in list_tasks(suite)] if args.tasks is None else args.tasks
            for task_id in ids:
                result = measure_task(suite, task_id, args)
                results.append(result)
                print(json.dumps(dataclasses.asdict(result)), flush=True)
                if args.json is not None:
                    with args.json.open("a") as file:
                        file.write(json.dumps(dataclasses.asdict(result)) + "\n")
    table = markdown(results)
    print(table)
    if args.out is not None:
        write_between_markers(args.out, table)
    return 0


def measure_task(suite: str, task_id: int, args: argparse.Namespace) -> TaskResult:
    """Runs one episode from each initial state."""
    task = get_task(suite, task_id)
    repeat = not args.no_repeat_solves
    env = LiberoEnv(suite, task_id, cameras=("agentview",), image_size=16, repeat_solves=repeat)
    steps, vocs, failed = [], [], []
    began = 0.0
    try:
        for init_state_id in args.init_states:
            env.reset(options={"init_state_id": init_state_id})
            began = began or time.perf_counter()
            values, success = run_episode(env, args.policy, args.seed + init_state_id)
            steps.append(len(values) - 1)
            vocs.append(value_order_correlation(values) or 0.0)
            if not success:
                failed.append(init_state_id)
    finally:
        env.close()
    return TaskResult(
        suite=suite,
        task_id=task_id,
        task=task.language,
        episodes=len(args.init_states),
        successes=len(args.init_states) - len(failed),
        steps_mean=round(float(np.mean(steps)), 1),
        steps_max=max(steps),
        step_limit=task.max_episode_steps,
        voc_mean=round(float(np.mean(vocs)), 3),
        voc_min=round(min(vocs), 3),
        failed_init_states=tuple(failed),
        steps_per_second=round(sum(steps) / (time.perf_counter() - began), 1),
    )


def run_episode(env: LiberoEnv, policy_spec: str, seed: int) -> tuple[list[float], bool]:
    """One episode of a policy.

    Returns:
        `goal_progress` at the start and after every step, and whether the simulator saw success.
    """
    policy = make_policy(policy_spec)
    policy.reset(env, seed)
    info = env.current_info()
    values = [float(info["goal_progress"])]
    while True:
        _, terminated, truncated = env.step_unrendered(policy.act(None, info))
        info = env.current_info()
        values.append(float(info["goal_progress"]))
        if terminated or truncated:
            return values, bool(info["success"])


def read_results(path: Path) -> list[TaskResult]:
    """Reads what `--json` wrote; the last line of a task counts."""
    latest: dict[tuple[str, int], TaskResult] = {}
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        fields["failed_init_states"] = tuple(fields["failed_init_states"])
        result = TaskResult(**fields)
        latest[result.suite, result.task_id] = result
    return [latest[key] for key in sorted(latest)]


def markdown(results: list[TaskResult]) -> str:
    """The table: one section per suite, one row per task, a last row for the suite."""
    lines = []
    for suite in dict.fromkeys(result.suite for result in results):
        rows = [result for result in results if result.suite == suite]
        solved, episodes = sum(r.successes for r in rows), sum(r.episodes for r in rows)
        lines += [
            f"### {suite} (limit {rows[0].step_limit} steps)",
            "",
            "| id | task | success | mean steps | most steps | VOC mean | VOC least | not solved from |",
            "|---:|---|---:|---:|---:|---:|---:|---|",
            *(
                f"| {r.task_id} | {r.task} | {r.successes}/{r.episodes} | {r.steps_mean} | {r.steps_max} "
                f"| {r.voc_mean} | {r.voc_min} | {', '.join(map(str, r.failed_init_states)) or '-'} |"
                for r in rows
            ),
            f"| | **all** | **{solved}/{episodes} ({100.0 * solved / episodes:.1f} %)** "
            f"| {np.mean([r.steps_mean for r in rows]):.1f} | {max(r.steps_max for r in rows)} "
            f"| {np.mean([r.voc_mean for r in rows]):.3f} | {min(r.voc_min for r in rows):.3f} | |",
            "",
        ]
    return "\n".join(lines)


def write_between_markers(path: Path, table: str) -> None:
    """Replaces what stands between the two marker lines of a file."""
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"Expected the lines {BEGIN!r} and {END!r} once each in {path}.")
    head, _, rest = text.partition(BEGIN)
    path.write_text(f"{head}{BEGIN}\n\n{table}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    raise SystemExit(main())
