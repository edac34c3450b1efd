"""First resets of a new process to official states: without a start cache, filling one, and with a filled one.

    python benchmarks/start_cache.py --suite libero_spatial --task 0 --states 50

Each way is measured in processes of its own, all in turn, `--rounds` times; the fastest round counts. The baseline is
without a cache. "State" is the simulator's settled state alone, "reset" the env's reset with the agent's picture, and
"process" all of them from importing the env on.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WAYS = ("without", "filling", "filled")
UNITS = {"state": "ms", "reset": "ms", "process": "s"}


def child(args: argparse.Namespace) -> dict[str, float]:
    """Seconds per state and per reset, and of everything."""
    from vlac_gym.envs.libero import LiberoEnv

    begun = time.perf_counter()
    env = LiberoEnv(args.suite, args.task, cameras=("agentview",), image_size=args.image_size)
    simulator = env._activate(env.task)
    state_s = reset_s = 0.0
    for i in range(args.states):
        before = time.perf_counter()
        simulator.start(i)
        between = time.perf_counter()
        env.reset(options={"init_state_id": i})  # finds it in memory, and draws it
        after = time.perf_counter()
        state_s, reset_s = state_s + between - before, reset_s + after - before
    whole_s = time.perf_counter() - begun
    env.close()
    return {"state": state_s / args.states, "reset": reset_s / args.states, "process": whole_s}


def run_child(args: argparse.Namespace, folder: str | None) -> dict[str, float]:
    """Runs `child` in a new process."""
    environment = {name: value for name, value in os.environ.items() if name != "VLAC_GYM_START_CACHE"}
    if folder is not None:
        environment["VLAC_GYM_START_CACHE"] = folder
    command = [sys.executable, __file__, "--child", *sys.argv[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(args: argparse.Namespace) -> tuple[dict[str, dict[str, float]], int, int]:
    """The fastest of each way, and the number of files with their bytes."""
    rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for way in WAYS:
                rounds[way].append(run_child(args, None if way == "without" else folder))
            files = [path.stat().st_size for path in Path(folder).iterdir()]
    best = {way: {name: min(r[name] for r in results) for name in UNITS} for way, results in rounds.items()}
    return best, len(files), sum(files)


def main() -> None:
    """Prints a line for each of state, reset and process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", default="libero_spatial")
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--states", type=int, default=50, help="the first so many of the task")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args)))
        return
    best, count, size = measure(args)
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"{args.suite} {args.task}, {args.states} states; {os.cpu_count()} cores, load {load}")
    print(f"{'':10}" + "".join(f"{way:>12}" for way in WAYS) + f"{'without / filled':>18}")
    for name, unit in UNITS.items():
        scale = 1e3 if unit == "ms" else 1.0
        row: list[Any] = [scale * best[way][name] for way in WAYS]
        ratio = best["without"][name] / best["filled"][name]
        print(f"{f'{name}, {unit}':10}" + "".join(f"{value:12.2f}" for value in row) + f"{ratio:18.2f}")
    print(f"{count} files, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
