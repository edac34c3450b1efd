"""Rendering spread over the visible GPUs beside rendering on the first alone: env steps per second of `make_vec`.

    python benchmarks/render_devices.py --num-workers 16

One env per worker, both cameras rendered at every step; the two ways in turn, each in workers of its own.
"""

import argparse
import time

import numpy as np

from vlac_gym.vector import make_vec


def steps_per_second(render_devices: tuple[int, ...] | None, args: argparse.Namespace) -> float:
    """Env steps per second of all workers together."""
    env = make_vec("libero_spatial", [0], args.num_workers, render_devices=render_devices)
    actions = np.zeros((args.num_workers, 7), dtype=np.float32)
    try:
        env.reset(seed=0)
        for _ in range(5):
            env.step(actions)
        start = time.perf_counter()
        for _ in range(args.steps):
            env.step(actions)
        return args.num_workers * args.steps / (time.perf_counter() - start)
    finally:
        env.close()


def main() -> None:
    """Measures both and prints the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-workers", type=int, default=16)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    first = steps_per_second((0,), args)
    spread = steps_per_second(None, args)
    print(f"first GPU alone: {first:.0f} env steps/s; all visible: {spread:.0f} ({spread / first:.2f} times)")


if __name__ == "__main__":
    main()
