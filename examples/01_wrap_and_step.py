"""Put a critic in the place of LIBERO's success flag, and step through one training episode.

pip install "vlac-gym[demo]"
python examples/01_wrap_and_step.py --policy expert
"""

import argparse

import gymnasium as gym

import vlac_gym
from vlac_gym.critic import make_critic
from vlac_gym.policies import make_policy
from vlac_gym.wrappers import VLACRewardWrapper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--critic", default="oracle", help="any critic spec, e.g. http://critic-host:8400")
    parser.add_argument("--policy", default="random", help="what stands in for your VLA: random, expert, …")
    parser.add_argument("--max-episode-steps", type=int, default=220)
    parser.add_argument("--image-size", type=int, default=256)
    args = parser.parse_args()

    env = gym.make(
        vlac_gym.LIBERO_ENV_ID,
        task_suite="libero_spatial",
        task_id=0,
        cameras=("agentview",),
        image_size=args.image_size,
    )
    env = VLACRewardWrapper(
        env, make_critic(args.critic), mode="train", max_episode_steps=args.max_episode_steps
    )
    policy = make_policy(args.policy)

    obs, info = env.reset(seed=0, options={"init_state_id": 3})
    policy.reset(env, seed=0)
    print(f"task: {info['task']}")
    terminated = truncated = False
    while not (terminated or truncated):
        obs, reward, terminated, truncated, info = env.step(policy.act(obs, info))
        if info["elapsed_steps"] % 20 == 0:
            print(f"step {info['elapsed_steps']:3}: success_prob {info['critic']['success_prob']:.2f}")

    # terminated: the critic said done, and paid 1. truncated: the step limit, paid with the critic's value.
    end = "the critic said done" if terminated else "the step limit came"
    print(f"step {info['elapsed_steps']}: {end}, reward {reward:.2f}")
    print(f"for audit only: the simulator saw success: {info['sim_success']}")
    env.close()


if __name__ == "__main__":
    main()
