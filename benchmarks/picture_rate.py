"""Pictures per second of processes that share a GPU (or the cores), and what a critic's call takes beside them.

    python benchmarks/picture_rate.py --processes 1 16                          # pictures alone
    python benchmarks/picture_rate.py --processes 1 16 --critic 'nano?device=cuda' --frames 4

Each process draws both cameras of one task again and again, without physics; `--physics` measures control steps without
pictures instead. The first number of processes is the baseline of the printed ratios. With `--critic`, done checks of
`--frames` pictures are timed in this process while the others draw, and alone before that: a GPU's contexts take turns.
"""

import argparse
import multiprocessing
import time
from typing import Any

import numpy as np

from vlac_gym.critic import make_critic
from vlac_gym.envs.gl import spread_rendering
from vlac_gym.envs.libero import LiberoEnv

TASK = "pick up the black bowl between the plate and the ramekin and place it on the plate"


def work(number: int, args: argparse.Namespace, barrier: Any, results: Any) -> None:
    """One process: draws, or steps, for `--seconds`, and reports (count, seconds, seconds of processor time)."""
    spread_rendering(number)
    env = LiberoEnv("libero_spatial", 0, image_size=args.image_size, repeat_solves=not args.no_repeat_solves)
    env.reset(options={"init_state_id": number % 50})
    actions = np.random.default_rng(number).uniform(-1, 1, (64, 7))
    count = 0
    barrier.wait()
    began, cpu_began = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < args.seconds:
        if args.physics:
            env.step_unrendered(actions[count % len(actions)])
            count += 1
            continue
        env._frames = {}  # an env keeps the picture of a state; this measures the renderer
        env.observe()
        count += 2
    results.put((count, time.perf_counter() - began, time.process_time() - cpu_began))


def milliseconds_per_call(critic: Any, args: argparse.Namespace, seconds: float) -> float:
    """Mean time of a done check of `--frames` new pictures."""
    rng = np.random.default_rng(0)
    calls, spent = 0, 0.0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        frames = list(rng.integers(0, 256, (args.frames, args.image_size, args.image_size, 3), np.uint8))
        began = time.perf_counter()
        critic.success_prob(frames, [TASK] * len(frames))
        spent += time.perf_counter() - began
        calls += 1
    return 1e3 * spent / calls


def measure(processes: int, args: argparse.Namespace, critic: Any) -> dict[str, float | None]:
    """Units per second of all, ms of processor time of each, and the critic's ms per call beside them."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes + 1), context.Queue()
    workers = [
        context.Process(target=work, args=(i, args, barrier, results), daemon=True) for i in range(processes)
    ]
    for worker in workers:
        worker.start()
    barrier.wait()
    latency = None if critic is None else milliseconds_per_call(critic, args, 0.8 * args.seconds)
    rows = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    total = sum(count for count, *_ in rows)
    return {
        "rate": sum(count / seconds for count, seconds, _ in rows),
        "cpu_ms": 1e3 * sum(cpu for *_, cpu in rows) / total,
        "critic_ms": latency,
    }


def main() -> None:
    """Measures each number of processes, and prints a line for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--physics", action="store_true")
    parser.add_argument("--no-repeat-solves", action="store_true")
    parser.add_argument("--critic")
    parser.add_argument("--frames", type=int, default=4)
    args = parser.parse_args()
    critic = None if args.critic is None else make_critic(args.critic)
    if critic is not None:
        critic.warm_up()
        milliseconds_per_call(critic, args, 0.5)
        print(
            f"critic alone: {milliseconds_per_call(critic, args, args.seconds):.1f} ms for {args.frames} frames"
        )
    unit, base = ("control steps" if args.physics else "pictures"), None
    for processes in args.processes:
        result = measure(processes, args, critic)
        base = base or result["rate"]
        line = f"{processes:3} processes: {result['rate']:7.1f} {unit}/s ({result['rate'] / base:.2f}), "
        line += f"{result['cpu_ms']:.1f} ms of CPU each"
        if critic is not None:
            line += f"; critic beside them: {result['critic_ms']:.1f} ms"
        print(line, flush=True)


if __name__ == "__main__":
    main()
