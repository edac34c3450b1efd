"""Judge a ManiSkill3 task by a critic: the wrapper takes any Gymnasium env with a picture and a task text.

pip install vlac-gym "mani-skill>=3" torch
python examples/06_maniskill.py --steps 50
python examples/06_maniskill.py --steps 200 --num-envs 16  # simulated at once on the GPU

With --num-envs the envs are one batch of tensors, which stay on the GPU but for the critic's frames (tested on a double
of that interface only).

ManiSkill renders through Vulkan on a GPU (proven with mani-skill 3.0.1 and sapien 3.0.3 on an H200); on a CPU its
simulator finds no rendering device, Mesa's lavapipe included.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from vlac_gym.extras import needs
from vlac_gym.wrappers import VLACRewardWrapper
from vlac_gym.wrappers.vector import VLACRewardWrapper as VectorVLACRewardWrapper

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


class MaskedResets(VectorWrapper):
    """ManiSkill's vector env as a critic needs it: reset by `reset_mask`, and never by itself."""

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.metadata = dict(env.metadata) | {"autoreset_mode": AutoresetMode.DISABLED}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets all envs, or those of the mask, which ManiSkill takes as `env_idx`."""
        with needs("This example", get='Run: pip install "mani-skill>=3" torch'):
            import torch

        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        if mask is not None:
            options["env_idx"] = torch.as_tensor(np.flatnonzero(mask), device=self.env.device)
        return self.env.reset(seed=seed, options=options or None)


def batch_frame(observation: Mapping[str, Any], info: Mapping[str, Any]) -> Any:
    """One env's picture, a tensor: the wrapper takes it off the GPU."""
    return observation["sensor_data"]["base_camera"]["rgb"]


def make_batch(env_id: str, critic: str, max_episode_steps: int, num_envs: int) -> VectorVLACRewardWrapper:
    """`num_envs` ManiSkill envs on the GPU simulator under one critic, asked about all at once."""
    with needs("This example", get='Run: pip install "mani-skill>=3" torch'):
        import mani_skill.envs  # noqa: F401 (registers the ids)
        from mani_skill.vector.wrappers.gymnasium import ManiSkillVectorEnv

    options = {"obs_mode": "rgb", "control_mode": "pd_ee_delta_pose", "max_episode_steps": max_episode_steps}
    env = ManiSkillVectorEnv(env_id, num_envs, auto_reset=False, **options)
    return VectorVLACRewardWrapper(MaskedResets(env), critic, task=TASKS[env_id], frame=batch_frame)


def play_batch(env: VectorVLACRewardWrapper, steps: int) -> None:
    """Steps the envs by random actions, resets each where the critic ends its episode, and counts ends."""
    env.reset(seed=0)
    done = ended = 0
    for _ in range(steps):
        _, _, terminations, truncations, _ = env.step(env.action_space.sample())
        over = terminations | truncations
        done, ended = done + int(terminations.sum()), ended + int(over.sum())
        if over.any():
            env.reset(options={"reset_mask": over})
    print(f"{env.num_envs} envs, {steps} steps each: {ended} episodes, {done} of them done by the critic")
    env.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env-id", choices=TASKS, default="PickCube-v1")
    parser.add_argument("--critic", default="oracle", help="any critic spec, e.g. http://critic-host:8400")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--num-envs", type=int, help="envs simulated at once; without it, one on the CPU")
    args = parser.parse_args()

    if args.num_envs is not None:
        play_batch(make_batch(args.env_id, args.critic, 50, args.num_envs), args.steps)
        return
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
