"""Speed of `LiberoEnv` and `make_vec` beside what others use, on this machine.

    python benchmarks/env_speed.py                              # 2 workers; some minutes
    python benchmarks/env_speed.py --gpu                        # 16 and 32 workers, EGL on a GPU
    python benchmarks/env_speed.py --lerobot-python PATH        # and lerobot's env, installed elsewhere

Compared with (a) LIBERO's `OffScreenRenderEnv` as its evaluation uses it: two cameras rendered at every step, a
`reset` that compiles the model anew; (b) LIBERO's `SubprocVectorEnv` of those; (c) lerobot's `LiberoEnv`. Each is
measured in a process of its own, all of them in turn, `--rounds` times; the fastest round counts. Every
number is given by the clock, and in processor time (of all threads and workers), which a busy machine disturbs less.
`--out` is written after every part, so that one that fails loses nothing measured before it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from env_parts import CHUNK, PARTS

ROOT = Path(__file__).parents[1]
BUILD = "first env, to its first observation"
BASES = {"first env": BUILD, "second env": BUILD, "reset": "reset", "step": "step"}
"""How a measurement of ours begins -> LIBERO's that it stands beside; others stand alone."""

OTHER_PYTHONS = {
    "lerobot": "lerobot_python",
    "lerobot_workers": "lerobot_python",
    "rlinf_workers": "rlinf_python",
}
"""Parts measured by another interpreter -> the argument that holds its path."""


def run_part(name: str, args: argparse.Namespace, num_workers: int = 0) -> dict[str, Any]:
    """Measures one part in a process of its own, with `num_workers` workers.

    Raises:
        SystemExit: It failed; the message says why.
    """
    python = getattr(args, OTHER_PYTHONS[name]) if name in OTHER_PYTHONS else sys.executable
    command = [
        python, __file__, "--part", name, "--suite", args.suite, "--steps", str(args.steps),
        "--image-size", str(args.image_size), "--num-workers", str(num_workers), "--chunk", str(args.chunk),
    ]  # fmt: skip
    try:  # without a terminal: LIBERO may ask a question at its first import
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as e:
        sys.exit(f"{name} failed: {e}")
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def fastest(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The smallest of each number."""
    best: dict[str, Any] = {}
    for name, value in rounds[0].items():
        if isinstance(value, dict):
            best[name] = fastest([result[name] for result in rounds])
        else:
            best[name] = min(result[name] for result in rounds)
    return best


def measure(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    machine = describe_machine()
    plan = [(name, name, 0) for name in ("one_env", "libero")]
    plan += [("lerobot", "lerobot", 0)] if args.lerobot_python else []
    for count in args.workers:
        plan += [(f"{name}_{count}", name, count) for name in ("workers", "libero_workers")]
    rounds: dict[str, list[dict[str, Any]]] = {key: [] for key, _, _ in plan}
    results: dict[str, dict[str, Any]] = {}
    for number in range(args.rounds):
        for key, name, count in plan:
            print(f"round {number + 1} of {args.rounds}: {key}", file=sys.stderr)
            rounds[key].append(run_part(name, args, count))
            results = {key: fastest(of_part) for key, of_part in rounds.items() if of_part}
            if args.out:
                args.out.write_text(json.dumps({"machine": machine, "results": results}, indent=2))
    return results


def show(results: dict[str, dict[str, Any]], args: argparse.Namespace) -> None:
    ours, theirs = results["one_env"], results["libero"]
    print(f"{'ms, by clock (and CPU)':44} {'ours':>20} {'LIBERO':>22} {'ratio':>16}")
    for name, value in ours.items():
        base = next((row for start, row in BASES.items() if name.startswith(start)), None)
        print_row(name, value, theirs[base] if base else None)
    if "lerobot" in results:
        for name, value in results["lerobot"].items():
            print(f"{'lerobot: ' + name:44} {'':20} {pair(value):>22}")
    for count in args.workers:
        ours, theirs = results[f"workers_{count}"], results[f"libero_workers_{count}"]
        for name in ("start and first reset of all", "step of one env"):
            print_row(f"{count} workers: {name}", ours[name], theirs[name])
        rate, base_rate = (1 / part["step of one env"]["clock_s"] for part in (ours, theirs))
        print(
            f"{f'{count} workers: steps/s in all':44} {rate:20.1f} {base_rate:22.1f} {rate / base_rate:8.1f}"
        )
        name = "memory of a worker, MiB"
        print(f"{f'{count} workers: {name}':44} {ours[name]:20.0f} {theirs[name]:22.0f}")


def print_row(name: str, ours: dict[str, float], base: dict[str, float] | None) -> None:
    ratio = ""
    if base is not None:
        clock, cpu = base["clock_s"] / ours["clock_s"], base["cpu_s"] / max(ours["cpu_s"], 1e-9)
        ratio = f"{clock:7.1f} ({cpu:.1f})"
    print(f"{name:44} {pair(ours):>20} {pair(base) if base else '':>22} {ratio:>16}")


def pair(value: dict[str, float]) -> str:
    return f"{1e3 * value['clock_s']:.2f} ({1e3 * value['cpu_s']:.2f})"


def describe_machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.machine()
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return f"{os.cpu_count()} x {model}; load {load}; MUJOCO_GL={os.environ.get('MUJOCO_GL', 'auto')}; commit {commit}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", default="libero_spatial")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40, help=f"per measurement, a multiple of {CHUNK}")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="*", help="numbers of workers to measure; 2 by default")
    parser.add_argument("--gpu", action="store_true", help="EGL on a GPU; 16 and 32 workers by default")
    parser.add_argument("--lerobot-python", help="a Python that can import lerobot, LIBERO and vlac_gym")
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON, after every part")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--num-workers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--chunk", type=int, default=CHUNK, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.steps < CHUNK or args.steps % CHUNK:
        parser.error(f"--steps must be a multiple of {CHUNK}, got {args.steps}")
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return
    if args.workers is None:
        args.workers = [16, 32] if args.gpu else [2]
    if args.gpu:
        os.environ.update(MUJOCO_GL="egl", PYOPENGL_PLATFORM="egl")
    print(describe_machine())
    show(measure(args), args)


if __name__ == "__main__":
    main()
