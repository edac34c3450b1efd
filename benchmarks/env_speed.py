"""Speed of `LiberoEnv` beside LIBERO's own `OffScreenRenderEnv`, on this machine.

    python benchmarks/env_speed.py --steps 40

Prints seconds to the first observation (first and second env of a task), seconds per reset and control steps
per second; LIBERO's env renders two cameras at every step, as its evaluation does.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from vlac_gym.envs.libero import LiberoEnv

CHUNK = 8


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def measure_ours(suite: str, image_size: int, actions: np.ndarray) -> dict[str, float]:
    env = LiberoEnv(suite, cameras=("agentview",), image_size=image_size)
    second = LiberoEnv(suite, cameras=("agentview",), image_size=image_size)
    results = {
        "first env, to its first observation, s": seconds(lambda: env.reset(options={"init_state_id": 0})),
        "second env, to its first observation, s": seconds(
            lambda: second.reset(options={"init_state_id": 0})
        ),
        "reset to a state not seen before, s": seconds(lambda: env.reset(options={"init_state_id": 1})),
        "reset to a state seen before, s": seconds(lambda: env.reset(options={"init_state_id": 0})),
    }
    results["one camera, every step, steps/s"] = len(actions) / seconds(
        lambda: [env.step(a) for a in actions]
    )
    results["one camera, every 8th step, steps/s"] = len(actions) / seconds(
        lambda: step_in_chunks(env, actions)
    )
    results["no picture, steps/s"] = len(actions) / seconds(lambda: [env.step_unrendered(a) for a in actions])
    env.close()
    second.close()
    return results


def step_in_chunks(env: LiberoEnv, actions: np.ndarray) -> None:
    for begin in range(0, len(actions), CHUNK):
        for action in actions[begin : begin + CHUNK]:
            env.step_unrendered(action)
        env.observe()
        env.current_info()


def measure_libero(suite: str, image_size: int, actions: np.ndarray) -> dict[str, float]:
    from vlac_gym.envs.gl import configure_gl
    from vlac_gym.envs.libero_tasks import get_task

    configure_gl()
    from libero.libero.envs import OffScreenRenderEnv

    file = str(get_task(suite, 0).bddl_file)
    begin = time.perf_counter()
    env = OffScreenRenderEnv(bddl_file_name=file, camera_heights=image_size, camera_widths=image_size)
    built = time.perf_counter() - begin
    resets = [seconds(env.reset) for _ in range(3)]
    steps = len(actions) / seconds(lambda: [env.step(a) for a in actions])
    env.close()
    return {
        "LIBERO: build and first reset, s": built + resets[0],
        "LIBERO: reset, s": min(resets[1:]),
        "LIBERO: steps/s": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", default="libero_spatial")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    actions = np.random.default_rng(0).uniform(-1, 1, (arguments.steps, 7))
    results = measure_ours(arguments.suite, arguments.image_size, actions)
    results.update(measure_libero(arguments.suite, arguments.image_size, actions))
    for name, value in results.items():
        print(f"{name:45s} {value:10.4f}")


if __name__ == "__main__":
    main()
