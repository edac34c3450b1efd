"""`vlac-gym eval` counts what LIBERO's own evaluation loop counts, on recorded actions in real LIBERO."""

import json

import numpy as np
import pytest

from vlac_gym.cli import main
from vlac_gym.envs.libero.importing import importing_libero
from vlac_gym.envs.libero.tasks import get_task
from vlac_gym.policies import make_policy

TASK, STATE = get_task("libero_spatial", 0), 0


def expert_actions(env) -> np.ndarray:
    """What the expert does from the initial state until the simulator sees success, and a little longer."""
    env.reset(options={"init_state_id": STATE, "task_id": TASK.task_id})
    policy = make_policy("expert")
    policy.reset(env, seed=0)
    actions = []
    is_there = False
    while not is_there:
        actions.append(policy.act(None, {}))
        _, is_there, truncated = env.unwrapped.step_unrendered(actions[-1])
        assert not truncated
    return np.array([*actions, *[actions[-1]] * 5])


def libero_counts(actions: np.ndarray, max_steps: int) -> tuple[bool, int]:
    """Success and steps by the loop of LIBERO's `lifelong/evaluate.py`, settled as openpi and OpenVLA-OFT do."""
    with importing_libero():
        from libero.libero.envs import OffScreenRenderEnv
    env = OffScreenRenderEnv(bddl_file_name=str(TASK.bddl_file), camera_heights=32, camera_widths=32)
    env.seed(0)
    env.reset()
    env.set_init_state(TASK.load_init_states()[STATE])
    for _ in range(10):
        env.step([0.0] * 6 + [-1.0])
    steps, done = 0, False
    while steps < max_steps and not done:
        _, _, done, _ = env.step(actions[steps].tolist())
        steps += 1
    env.close()
    return bool(done), steps


def eval_counts(actions: np.ndarray, max_steps: int, tmp_path) -> tuple[bool, int]:
    np.save(tmp_path / "actions.npy", actions)
    runs = tmp_path / f"runs-{max_steps}"
    arguments = [
        "--policy",
        f"replay:{tmp_path / 'actions.npy'}",
        "--task-id",
        "0",
        "--episodes-per-task",
        "1",
    ]
    arguments += ["--num-envs", "1", "--max-episode-steps", str(max_steps), "--image-size", "32"]
    assert main(["eval", "--runs", str(runs), *arguments]) == 0
    (path,) = runs.iterdir()
    (row,) = [json.loads(line) for line in (path / "episodes.jsonl").read_text().splitlines()]
    assert (row["task_id"], row["init_state_id"]) == (0, STATE)
    return row["success"], row["steps"]


@pytest.mark.slow
def test_recorded_actions_count_the_same_in_liberos_own_loop(libero_env, tmp_path):
    actions = expert_actions(libero_env)
    success, steps = libero_counts(actions, TASK.max_episode_steps)
    assert success
    assert 60 < steps <= len(actions)
    assert eval_counts(actions, TASK.max_episode_steps, tmp_path) == (True, steps)
    # One step less, and it is a failure for both.
    assert libero_counts(actions, steps - 1) == (False, steps - 1)
    assert eval_counts(actions, steps - 1, tmp_path) == (False, steps - 1)
