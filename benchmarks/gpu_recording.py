"""Writes what gpu_simulation.py needs of LIBERO tasks: it runs where neither LIBERO nor its MuJoCo is installed.

    python benchmarks/gpu_recording.py --tasks 0 5 --episodes 5 --out recording

Per task a folder `SUITE_ID` with what `vlac-gym export-scenes` writes, and
- `episodes.npz`: episodes of the expert: actions, states, torques of every physics step, success, and whether both
  fingers touch the object. The last one is of 60 random actions instead.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.envs.warp.export import export_scene, state_of
from vlac_gym.policies import Policy, make_policy

RANDOM_STEPS = 60


def main() -> None:
    """Records every task asked for, and prints a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", default="libero_spatial")
    parser.add_argument("--tasks", type=int, nargs="+", default=[0])
    parser.add_argument("--starts", type=int, default=50, help="initial states 0 to N-1")
    parser.add_argument("--episodes", type=int, default=5, help="the expert's, from initial states 0 to N-1")
    parser.add_argument("--steps", type=int, default=160, help="an episode's most steps")
    parser.add_argument(
        "--textures", type=int, default=1024, metavar="PIXELS", help="longest side of a texture"
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.episodes > args.starts:
        parser.error(f"--episodes {args.episodes} begin at the --starts {args.starts}: record as many starts")
    for task_id in args.tasks:
        print(record(args, task_id), flush=True)


def record(args: argparse.Namespace, task_id: int) -> str:
    """Records one task; returns the line to print."""
    folder = args.out / f"{args.suite}_{task_id}"
    export_scene(args.suite, task_id, folder, num_starts=args.starts, texture_size=args.textures)
    env = LiberoEnv(args.suite, task_id, cameras=("agentview",), image_size=16)
    expert = make_policy("expert")
    episodes = [record_episode(env, expert, state, args.steps) for state in range(args.episodes)]
    random = record_episode(env, make_policy("random"), 0, RANDOM_STEPS)
    np.savez_compressed(
        folder / "episodes.npz",
        **{f"{name}_{i}": value for i, one in enumerate([*episodes, random]) for name, value in one.items()},
    )
    env.close()
    solved = sum(bool(episode["success"][-1]) for episode in episodes)
    lengths = [len(episode["actions"]) for episode in episodes]
    return f"{folder.name}: {args.starts} starts, expert solved {solved} of {len(episodes)}, steps {lengths}"


def record_episode(env: LiberoEnv, policy: Policy, init_state_id: int, limit: int) -> dict[str, np.ndarray]:
    """An episode until success: T actions, T + 1 states, and (T, 25, nu) controls, one per physics step."""
    env.reset(options={"init_state_id": init_state_id})
    simulator: Any = env._simulator  # a benchmark may look inside
    policy.reset(env, init_state_id)
    held = env.scene.goal[0].args[0]
    controls: list[np.ndarray] = []
    apply = simulator._control.apply

    def recording_apply() -> None:
        apply()
        controls.append(simulator._data.ctrl.copy())

    simulator._control.apply = recording_apply
    actions: list[np.ndarray] = []
    states = [state_of(simulator) | verdicts(env, held)]
    while not states[-1]["success"] and len(actions) < limit:
        actions.append(np.clip(policy.act(None, env.current_info()), -1.0, 1.0))
        env.step_unrendered(actions[-1])
        states.append(state_of(simulator) | verdicts(env, held))
    del simulator._control.apply
    controls_array = np.array(controls).reshape(len(actions), -1, simulator._model.nu)
    return {"actions": np.array(actions), "controls": controls_array, **_stacked(states)}


def verdicts(env: LiberoEnv, held: str) -> dict[str, np.ndarray]:
    """Whether the goal holds and the object is grasped."""
    return {"success": np.array(env.scene.is_success()), "grasped": np.array(env.scene.is_grasped(held))}


def _stacked(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


if __name__ == "__main__":
    main()
