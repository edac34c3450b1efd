"""The env's side of `gpu_simulation.py --verdicts`, which starts it where vlac-gym[libero] is installed.

`play` writes states of episodes with the env's own pictures of them, gpu_simulation.py adds pictures of the same states
by other renderers, and `judge` tells how far those are from the env's: in levels, for a critic and for a policy.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlac_gym.critic import make_critic
from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.policies import make_policy

CAMERAS = ("agentview", "wrist")
EPISODES = (("expert", 0), ("expert", 1), ("expert:fail=drop", 0), ("expert:fail=hover", 1))
"""Who acts, and from which initial state: two that end in success and two that don't."""
DONE = (0.5, 0.9, 0.95)
"""The `success_prob` from which a frame counts as done."""
AFTER = 16
"""Env steps that an episode goes on after its first success; all of its successes are looked at."""
SHOWN = 3
"""Rows of the picture."""


def main() -> None:
    """Does one half."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("play", "judge"))
    parser.add_argument("--suite", required=True)
    parser.add_argument("--task", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--every", type=int, default=8, help="env steps from state to state")
    parser.add_argument("--steps", type=int, default=160, help="an episode's most steps")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--critic", default="nano")
    parser.add_argument("--policy", type=Path, help="a folder of vlac_gym.clone.policy.save_policy")
    args = parser.parse_args()
    if args.part == "play":
        play(args)
    else:
        judge(args)


def play(args: argparse.Namespace) -> None:
    """Writes `states.npz`: a row per state, of all episodes."""
    env = LiberoEnv(args.suite, args.task, cameras=CAMERAS, image_size=args.pixels)
    rows: list[dict[str, Any]] = []
    for number, (spec, init_state_id) in enumerate(EPISODES):
        policy = make_policy(spec)
        env.reset(options={"init_state_id": init_state_id})
        policy.reset(env, init_state_id)
        solved_at = args.steps
        for step in range(args.steps + 1):
            info = env.current_info()
            solved_at = min(solved_at, step) if info["success"] else solved_at
            if step % args.every == 0 or info["success"]:
                place = env._simulator._data.qpos.copy()  # a benchmark may look inside
                rows.append({"episode": number, "success": info["success"], "qpos": place, **env.observe()})
            if step >= solved_at + AFTER:
                break
            env.step_unrendered(np.clip(policy.act(None, info), -1.0, 1.0))
    env.close()
    args.folder.mkdir(parents=True, exist_ok=True)
    np.savez(args.folder / "states.npz", **{name: np.stack([row[name] for row in rows]) for name in rows[0]})


def judge(args: argparse.Namespace) -> None:
    """Prints how far the pictures of `pictures.npz`, a renderer each, are from the env's; writes a PNG of each."""
    with np.load(args.folder / "states.npz") as arrays:
        states = dict(arrays)
    with np.load(args.folder / "pictures.npz") as arrays:
        drawn = dict(arrays)
    own = np.stack([states[f"{camera}_image"] for camera in CAMERAS], axis=1)
    solved = [bool(states["success"][states["episode"] == i].any()) for i in range(len(EPISODES))]
    print(f"{len(own)} states of {len(EPISODES)} episodes, solved: {solved}", flush=True)
    critic = make_critic(args.critic)
    task = LiberoEnv(args.suite, args.task).task.language
    reference = verdicts(critic, own[:, 0], states["episode"], task)
    acts = actions(args, own, states) if args.policy else None
    for name, pictures in drawn.items():
        print("\n".join(f"{name}: {line}" for line in picture_lines(pictures, own)))
        there = verdicts(critic, pictures[:, 0], states["episode"], task)
        print(f"{name}: {verdict_line(there, reference)}")
        if acts is not None:
            print(f"{name}: {action_line(actions(args, pictures, states), acts)}")
        save_side_by_side(args.folder / f"{name}.png", pictures, own)
        print(f"{name}: {args.folder / f'{name}.png'}", flush=True)


def picture_lines(pictures: np.ndarray, own: np.ndarray) -> list[str]:
    """Per camera: mean difference, mean absolute difference and peak signal-to-noise ratio, lowest and mean."""
    lines = []
    for i, camera in enumerate(CAMERAS):
        apart = pictures[:, i].astype(float) - own[:, i]
        ratio = 10 * np.log10(255**2 / np.maximum((apart**2).mean(axis=(1, 2, 3)), 1e-9))
        lines.append(
            f"{camera}: {apart.mean():+.2f} levels, {np.abs(apart).mean():.2f} absolute, "
            f"{ratio.mean():.1f} dB, the worst picture {ratio.min():.1f} dB"
        )
    return lines


def verdicts(critic: Any, frames: np.ndarray, episodes: np.ndarray, task: str) -> Mapping[str, np.ndarray]:
    """A critic's `success_prob` of each frame, and `value` along each episode."""
    values = [critic.value(list(frames[episodes == i]), task) for i in np.unique(episodes)]
    done = critic.success_prob(list(frames), [task] * len(frames))
    return {"success_prob": np.asarray(done), "value": np.concatenate(values)}


def verdict_line(there: Mapping[str, np.ndarray], here: Mapping[str, np.ndarray]) -> str:
    """How often done is the same, and the largest differences."""
    parts = []
    for limit in DONE:
        done, reference = (verdict["success_prob"] >= limit for verdict in (there, here))
        same = (done == reference).sum()
        parts.append(f"done at {limit} the same in {same} of {len(done)} ({reference.sum()} done)")
    for name in here:
        apart = np.abs(there[name] - here[name])
        parts.append(f"{name} apart by up to {apart.max():.3f}, on average {apart.mean():.4f}")
    return "; ".join(parts)


def actions(args: argparse.Namespace, pictures: np.ndarray, states: Mapping[str, np.ndarray]) -> np.ndarray:
    """The policy's first actions: (N, 7)."""
    import torch

    from vlac_gym.clone.policy import load_policy

    policy = load_policy(args.policy)
    index = policy.task_index({"task_suite": args.suite, "task_id": args.task})
    task = torch.zeros(len(pictures), len(policy.tasks))
    task[:, index] = 1.0
    images = {camera: torch.from_numpy(pictures[:, i].copy()) for i, camera in enumerate(CAMERAS)}
    with torch.no_grad():
        chunks, _, _ = policy(images, torch.from_numpy(states["state"]), task)
    return np.asarray(chunks[:, 0])


def action_line(there: np.ndarray, here: np.ndarray) -> str:
    """Differences of actions against how much actions differ from state to state."""
    apart = np.sqrt(((there - here) ** 2).mean(axis=0)) / here.std(axis=0)
    return (
        f"actions apart by {apart.mean():.3f} of their spread over states (root mean square, mean of "
        f"{here.shape[1]} components; {apart.max():.3f} in the worst), largest {np.abs(there - here).max():.3f}"
    )


def save_side_by_side(path: Path, pictures: np.ndarray, own: np.ndarray) -> None:
    """Of a few states, by camera: the env's picture, the other and their difference (times 4, from grey)."""
    rows = []
    for i in np.linspace(0, len(own) - 1, SHOWN).astype(int):
        apart = np.clip(128 + 4 * (pictures[i].astype(int) - own[i]), 0, 255).astype(np.uint8)
        views = [[own[i, k], pictures[i, k], apart[k]] for k in range(len(CAMERAS))]
        rows.append(np.concatenate([picture for view in views for picture in view], axis=1))
    Image.fromarray(np.concatenate(rows)).save(path)


if __name__ == "__main__":
    main()
