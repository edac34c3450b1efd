"""What `VLACRewardWrapper` itself costs per step, the critic excluded, beside the bare env.

    python benchmarks/wrapper_cost.py [--steps 2000] [--image-size 256]

Both run the same scripted env; the critic answers from a list. Target: under 1 ms of CPU per step.
"""

import argparse
import time

import gymnasium as gym
import numpy as np

from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.wrappers import VLACRewardWrapper


def seconds_per_step(env: gym.Env, steps: int) -> float:
    """CPU seconds of one step, over one episode of so many steps: other work on the machine does not count."""
    env.reset(seed=0)
    action = np.zeros(7, np.float32)
    start = time.process_time()
    for _ in range(steps):
        env.step(action)
    return (time.process_time() - start) / steps


def main() -> None:
    """Measures the bare env, then the wrapped one, and prints both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--image-size", type=int, default=256)
    args = parser.parse_args()
    size = {"max_episode_steps": None, "image_size": args.image_size}
    bare = seconds_per_step(ScriptedEnv(**size), args.steps)
    critic = ScriptedCritic(success_probs=[0.1], repeat=True)
    wrapped = seconds_per_step(
        VLACRewardWrapper(ScriptedEnv(**size), critic, max_buffer_bytes=2**32), args.steps
    )
    print(f"bare env     {bare * 1e3:.3f} ms of CPU per step")
    print(f"wrapped env  {wrapped * 1e3:.3f} ms of CPU per step, {wrapped / bare:.1f}x")
    print(f"wrapper      {(wrapped - bare) * 1e3:.3f} ms of CPU per step (target: under 1 ms)")


if __name__ == "__main__":
    main()
