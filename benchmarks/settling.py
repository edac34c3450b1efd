"""Where the objects of LIBERO's official initial states come to rest under the installed MuJoCo.

    python benchmarks/settling.py --json rest.jsonl
    python benchmarks/settling.py --suites libero_spatial --compare other.jsonl

States are recorded before their objects fall: each is restored, settled for `settle_steps` control steps, and then
watched for one step (50 ms). Printed per task: how far objects moved while settling, how fast they still are, and
the agent's mean pixel at initial state 0. With ``--compare``, also how far from another run's they lie at the end.
"""

import argparse
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.envs.libero.simulator import SETTLING_ACTION
from vlac_gym.envs.libero.tasks import STANDARD_SUITES, list_tasks

STEP_S = 0.05
MOVING_M_PER_S = 0.05


def main() -> None:
    """Measures every task asked for and prints a line each, then one for each suite."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suites", nargs="+", default=list(STANDARD_SUITES))
    parser.add_argument("--init-states", type=int, default=50, help="the first so many of each task")
    parser.add_argument("--settle-steps", type=int, default=10)
    parser.add_argument("--json", type=Path, help="append each task's resting places to this file")
    parser.add_argument("--compare", type=Path, help="such a file of another run")
    args = parser.parse_args()
    others = {} if args.compare is None else read_places(args.compare)
    print(f"mujoco {importlib.metadata.version('mujoco')}")
    for suite in args.suites:
        rows = []
        for task in list_tasks(suite):
            row = settle(suite, task.task_id, min(args.init_states, task.num_init_states), args.settle_steps)
            rows.append(row | {"apart_m": apart(row, others.get((suite, task.task_id)))})
            print(line(f"{suite} {task.task_id}", [rows[-1]]), flush=True)
            if args.json is not None:
                with args.json.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        print(line(suite, rows), flush=True)


def settle(suite: str, task_id: int, num_states: int, settle_steps: int) -> dict[str, Any]:
    """One task: places in m (state, object, 3), ways in m and speeds in m/s (state, object), and a mean pixel."""
    env = LiberoEnv(suite, task_id, cameras=("agentview",), image_size=256, settle_steps=0)
    starts, ends, speeds = [], [], []
    pixel = 0.0
    for state in range(num_states):
        env.reset(options={"init_state_id": state})
        starts.append(places(env))
        for _ in range(settle_steps):
            env.step_unrendered(SETTLING_ACTION)
        ends.append(places(env))
        if state == 0:
            pixel = float(env.render_camera("agentview").mean())
        env.step_unrendered(SETTLING_ACTION)
        speeds.append(np.linalg.norm(places(env) - ends[-1], axis=1) / STEP_S)
    env.close()
    return {
        "suite": suite,
        "task_id": task_id,
        "pixel": round(pixel, 2),
        "moved_m": np.linalg.norm(np.array(ends) - np.array(starts), axis=2).round(4).tolist(),
        "speed_m_per_s": np.array(speeds).round(4).tolist(),
        "places_m": np.array(ends).round(5).tolist(),
    }


def places(env: LiberoEnv) -> np.ndarray:
    """Where the task's objects are: float64 (objects, 3), m."""
    scene = env.scene
    return np.array([scene.object_position(name) for name in scene.objects])


def apart(row: dict[str, Any], other: np.ndarray | None) -> list[float]:
    """Per state, the largest distance in m of an object's two resting places; empty without another run."""
    if other is None:
        return []
    ours = np.array(row["places_m"])
    num_states = min(len(ours), len(other))
    return np.linalg.norm(ours[:num_states] - other[:num_states], axis=2).max(axis=1).tolist()


def read_places(file: Path) -> dict[tuple[str, int], np.ndarray]:
    """Resting places by (suite, task)."""
    rows = [json.loads(text) for text in file.read_text().splitlines()]
    return {(row["suite"], row["task_id"]): np.array(row["places_m"]) for row in rows}


def line(name: str, rows: list[dict[str, Any]]) -> str:
    """What is printed of one or more tasks."""
    speeds = np.array([max(speed) for row in rows for speed in row["speed_m_per_s"]])
    moved = np.array([max(way) for row in rows for way in row["moved_m"]]) * 1000
    text = (
        f"{name}: {len(speeds)} states, moved {np.median(moved):.1f} mm (most {moved.max():.1f}), then faster than "
        f"{MOVING_M_PER_S} m/s in {(speeds > MOVING_M_PER_S).sum()} (most {speeds.max():.3f}); "
        f"mean pixel {np.mean([row['pixel'] for row in rows]):.1f}"
    )
    distances = np.array([distance for row in rows for distance in row["apart_m"]]) * 1000
    if len(distances):
        text += (
            f"; {(distances > 5).sum()} end over 5 mm from the other run's (most {distances.max():.0f} mm)"
        )
    return text


if __name__ == "__main__":
    main()
