"""Speed of the shipped critic on CPU cores: a done check, a batch, a value list; against plain `generate`.

usage: python benchmarks/nano_cpu.py [--threads 2] [--batch 16] [--repeats 5]

Both engines read the same weights and answer the same requests in the same run, in turns. CPU time is that of the
whole process, all threads together: on a busy machine it says what wall time would be on free cores.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from vlac_gym.critic.engines.plain_transformers import PlainTransformersEngine
from vlac_gym.critic.nano.factory import CHECKPOINT, from_package
from vlac_gym.critic.vlac.critic import VLACCritic
from vlac_gym.types import Frame

TASK = "pick up the black bowl between the plate and the ramekin and place it on the plate"
IMAGE_SIZE = 256
VALUE_FRAMES = 25  # an episode of 120 steps at the default value stride


@dataclass(frozen=True)
class Timing:
    """Medians of one measurement, milliseconds."""

    wall_ms: float
    cpu_ms: float


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    nano = from_package("", device="cpu")
    plain = VLACCritic(PlainTransformersEngine(CHECKPOINT, device="cpu"), nano.config)
    critics = {"vlac-gym": nano, "plain generate": plain}
    print(f"nano, {IMAGE_SIZE}x{IMAGE_SIZE} frames, {args.threads} threads, median of {args.repeats}")
    print(f"{'':18}{'engine':16}{'wall ms':>10}{'CPU ms':>10}")
    for name, ask in _questions(args.batch).items():
        for engine, timing in _measure(critics, ask, args.repeats).items():
            print(f"{name:18}{engine:16}{timing.wall_ms:10.0f}{timing.cpu_ms:10.0f}", flush=True)
    for critic in critics.values():
        critic.close()


def _questions(batch: int) -> dict[str, Callable[[VLACCritic, list[Frame]], object]]:
    """What is measured -> how to ask it of fresh frames."""
    return {
        "done, 1 frame": lambda critic, frames: critic.success_prob(frames[:1], [TASK]),
        f"done, {batch} frames": lambda critic, frames: critic.success_prob(frames[:batch], [TASK] * batch),
        f"value, {VALUE_FRAMES} frames": lambda critic, frames: critic.value(frames[:VALUE_FRAMES], TASK),
    }


def _measure(
    critics: dict[str, VLACCritic], ask: Callable[[VLACCritic, list[Frame]], object], repeats: int
) -> dict[str, Timing]:
    """Asks each critic in turns; every repeat brings frames that nobody has seen. The first one warms up."""
    rng = np.random.default_rng(0)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in critics}
    for _ in range(repeats + 1):
        frames = list(rng.integers(0, 256, (32, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8))
        for name, critic in critics.items():
            wall, cpu = time.perf_counter(), time.process_time()
            ask(critic, frames)
            samples[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: Timing(*(1000 * statistics.median(column) for column in zip(*rows[1:], strict=True)))
        for name, rows in samples.items()
    }


if __name__ == "__main__":
    main()
