"""Judge a ManiSkill3 task by a critic: the wrapper takes any Gymnasium env with a picture and a task text.

pip install vlac-gym "mani-skill>=3" torch
python examples/06_maniskill.py --steps 50

ManiSkill renders through Vulkan on a GPU (proven with mani-skill 3.0.1 and sapien 3.0.3 on an H200); on a CPU its
simulator finds no rendering device, Mesa's lavapipe included.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from vlac_gym.extras import needs
from vlac_gym.wrappers import VLACRewardWrapper

TASKS = {
    "PickCube-v1": "pick up the red cube and move it to the green goal",
    "StackCube-v1": "stack the red cube on the green cube",
    "PushCube-v1": "push the blue cube into the red and white target",
}


def camera_frame(observation: Mapping[str, Any], info: Mapping[str, Any]) -> np.ndarray:
    """The base camera's picture: what the critic sees."""
    return np.ascontiguousarray(observation["sensor_data"]["base_camera"]["rgb"])


def make(env_id: str, critic: str, max_episode_steps: int) -> VLACRewardWrapper:
    """One ManiSkill env on the CPU simulator, with NumPy observations, under the critic."""
    with needs("This example", get='Run: pip install "mani-skill>=3" torch'):
        import mani_skill.envs  # noqa: F401 (registers the ids)
        from mani_skill.utils.wrappers.gymnasium import CPUGymWrapper

    env = gym.make(
        env_id,
        num_envs=1,
        obs_mode="rgb",
        control_mode="pd_ee_delta_pose",
        sim_backend="physx_cpu",
        max_episode_steps=max_episode_steps,
    )
    return VLACRewardWrapper(CPUGymWrapper(env), critic, task=TASKS[env_id], frame=camera_frame)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env-id", choices=TASKS, default="PickCube-v1")
    parser.add_argument("--critic", default="oracle", help="any critic spec, e.g. http://critic-host:8400")
    parser.add_argument("--steps", type=int, default=50)
    args = parser.parse_args()

    env = make(args.env_id, args.critic, args.steps)
    observation, info = env.reset(seed=0)
    frame = camera_frame(observation, info)
    print(f"{args.env_id}: {TASKS[args.env_id]!r}, frames {frame.shape}, actions {env.action_space.shape}")
    for step in range(1, args.steps + 1):
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        if terminated or truncated:
            print(
                f"step {step}: reward {reward:.3f}, critic done {terminated}, sim success {info['sim_success']}"
            )
            break
    env.close()


if __name__ == "__main__":
    main()
