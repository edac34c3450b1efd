"""What it brings to ask a critic for the value lists of all episodes at once, in one run on the same pictures.

    python benchmarks/value_lists.py                                                    # nano, here
    python benchmarks/value_lists.py --critic 'nano?device=cuda' --episodes 256 --frames 6 21

An episode's list is about `--frames` pictures, each compared with the one before it. `one by one` is `critic.value`
per episode, `at once` is `critic.values` of all. Pictures are noise, and new for each
measurement, so that no cache has them.
"""

import argparse
import time

import numpy as np

from vlac_gym.critic import make_critic

TASK = "pick up the black bowl between the plate and the ramekin and place it on the plate"


def main() -> None:
    """Prints a line per length of the lists."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--critic", default="nano")
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--frames", type=int, nargs="+", default=[6])
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2, help="the fastest counts")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    critic = make_critic(args.critic)
    tasks = [TASK] * args.episodes

    def episodes(count: int) -> list[list[np.ndarray]]:
        shape = (args.episodes, count, args.image_size, args.image_size, 3)
        return [list(frames) for frames in rng.integers(0, 256, shape, np.uint8)]

    critic.values(episodes(2), tasks)  # compiles and records
    for count in args.frames:
        times: dict[str, float] = {"one by one": np.inf, "at once": np.inf}
        for _ in range(args.rounds):
            for name in times:
                given = episodes(count)
                began = time.perf_counter()
                if name == "at once":
                    critic.values(given, tasks)
                else:
                    for frames in given:
                        critic.value(frames, TASK)
                times[name] = min(times[name], time.perf_counter() - began)
        alone, together = times.values()
        print(
            f"{args.episodes} lists of {count} frames: one by one {alone:.2f} s, at once {together:.2f} s, "
            f"{alone / together:.1f} times as fast",
            flush=True,
        )
    critic.close()


if __name__ == "__main__":
    main()
