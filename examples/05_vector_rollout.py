"""Play episodes in several LIBERO envs at once, in chunks, judged by one critic, while everything overlaps.

pip install "vlac-gym[demo]"
python examples/05_vector_rollout.py --num-envs 4 --group-size 2 --num-chunks 60

Two halves of the envs take turns: while one half moves, the other's frames are with the critic or the policy.
"""

import argparse

import numpy as np

import vlac_gym
from vlac_gym.critic import make_critic
from vlac_gym.extras import needs
from vlac_gym.metrics.episodes import EpisodeMetrics
from vlac_gym.rollout import EpisodeLog, PipelinedRollout
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper

with needs("This example", "demo"):
    from tqdm import tqdm


class RandomChunks:
    """Stands in for your VLA: any callable from observations, infos and group to actions (N, T, A)."""

    def __init__(self, chunk_size: int, seed: int) -> None:
        self.chunk_size = chunk_size
        self.rng = np.random.default_rng(seed)

    def __call__(self, observations: dict, infos: dict, group: int) -> np.ndarray:
        shape = (len(observations["state"]), self.chunk_size, 7)
        return self.rng.uniform(-1.0, 1.0, shape).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--critic", default="oracle", help="any critic spec, e.g. http://critic-host:8400")
    parser.add_argument("--task-ids", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--num-envs", type=int, default=4, help="in all; half of them in each group")
    parser.add_argument("--group-size", type=int, default=2, help="envs that play the same start")
    parser.add_argument("--num-chunks", type=int, default=60)
    parser.add_argument("--chunk-size", type=int, default=8)
    parser.add_argument("--max-episode-steps", type=int, default=220)
    parser.add_argument("--image-size", type=int, default=256)
    args = parser.parse_args()

    critic = make_critic(args.critic)
    groups = []
    for first in (0, args.num_envs // 2):
        env = vlac_gym.make_vec(
            "libero_spatial",
            args.task_ids,
            args.num_envs // 2,
            group_size=args.group_size,
            autoreset_mode="SameStep",
            cameras=("agentview",),
            image_size=args.image_size,
        )
        env = VLACRewardWrapper(
            env,
            critic,
            max_episode_steps=args.max_episode_steps,
            done_interval=args.chunk_size,
            first_env_index=first,
        )
        groups.append(ActionChunk(env, args.chunk_size))

    logs, metrics, lost = [EpisodeLog(group) for group in groups], EpisodeMetrics(), 0
    rollout = PipelinedRollout(groups, RandomChunks(args.chunk_size, seed=0))
    try:
        with tqdm(total=args.num_chunks * len(groups), unit="chunk") as bar:
            for step in rollout.run(args.num_chunks, seed=0):
                for episode in logs[step.group].add(
                    step.rewards, step.terminations, step.truncations, step.infos
                ):
                    lost += episode.is_lost
                    episode.add_to(metrics)
                    bar.write(
                        f"group {step.group} env {episode.env_index} task {episode.info.get('task_id')}: "
                        f"{episode.num_steps} steps, return {episode.episode_return:.2f}"
                    )
                bar.update()
    finally:
        for group in groups:
            group.close()
        critic.close()

    for name, value in metrics.compute().items():
        print(f"{name:30} {'-' if value is None else f'{value:.3f}'}")
    print(f"{'episodes lost':30} {lost}")


if __name__ == "__main__":
    main()
