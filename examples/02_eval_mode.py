"""Switch one wrapped env between train mode (the critic pays and stops) and eval mode (the simulator does).

pip install "vlac-gym[demo]"
python examples/02_eval_mode.py --policy expert
"""

import argparse
from typing import Any

import gymnasium as gym

import vlac_gym
from vlac_gym.critic import make_critic
from vlac_gym.policies import Policy, make_policy
from vlac_gym.wrappers import VLACRewardWrapper


def run_episode(env: gym.Env, policy: Policy, mode: str) -> dict[str, Any]:
    """Plays one episode in a mode, from the same initial state every time."""
    obs, info = env.reset(seed=0, options={"mode": mode, "init_state_id": 3})
    policy.reset(env, seed=0)
    episode_return, terminated, truncated = 0.0, False, False
    while not (terminated or truncated):
        obs, reward, terminated, truncated, info = env.step(policy.act(obs, info))
        episode_return += float(reward)
    return {"return": episode_return, "terminated": terminated, "truncated": truncated, "info": info}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    # A critic that overlooks the success for a while: the two modes disagree, as they may with a learned one.
    parser.add_argument("--critic", default="noisy_oracle:tpr=0.5,autocorrelation=0.99")
    parser.add_argument("--policy", default="random", help="what stands in for your VLA: random, expert, …")
    parser.add_argument("--max-episode-steps", type=int, default=220)
    parser.add_argument("--image-size", type=int, default=256)
    args = parser.parse_args()

    env = gym.make(
        vlac_gym.LIBERO_ENV_ID,
        max_episode_steps=args.max_episode_steps,
        task_suite="libero_spatial",
        task_id=0,
        cameras=("agentview",),
        image_size=args.image_size,
    )
    env = VLACRewardWrapper(env, make_critic(args.critic))
    policy = make_policy(args.policy)

    trained = run_episode(env, policy, "train")
    evaluated = run_episode(env, policy, "eval")
    for mode, episode in (("train", trained), ("eval", evaluated)):
        end = "terminated" if episode["terminated"] else "truncated"
        print(f"{mode:5}: {end} at step {episode['info']['elapsed_steps']}, return {episode['return']:.2f}")
    calls, sim_success = trained["info"]["critic"]["calls"], trained["info"]["sim_success"]
    print(f"train: {calls} critic calls; for audit only, sim_success is {sim_success}")
    print(
        f"eval:  'critic' in info is {'critic' in evaluated['info']}; success is {evaluated['info']['success']}"
    )
    env.close()


if __name__ == "__main__":
    main()
