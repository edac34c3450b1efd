"""`vlac-gym eval` counts what LIBERO's own evaluation loop counts, on recorded actions in real LIBERO."""

from pathlib import Path

import numpy as np
import pytest

from vlac_gym.envs.libero.importing import importing_libero
from vlac_gym.envs.libero.tasks import get_task
from vlac_gym.evaluation.folder import EvalFolder
from vlac_gym.evaluation.run import EvalSettings, evaluate
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


def steps_to_success_in_liberos_loop(actions: np.ndarray) -> int:
    """The loop of LIBERO's `lifelong/evaluate.py`, settled as openpi and OpenVLA-OFT do: until `done`."""
    with importing_libero():
        from libero.libero.envs import OffScreenRenderEnv
    env = OffScreenRenderEnv(bddl_file_name=str(TASK.bddl_file), camera_heights=32, camera_widths=32)
    env.seed(0)
    env.reset()
    env.set_init_state(TASK.load_init_states()[STATE])
    for _ in range(10):
        env.step([0.0] * 6 + [-1.0])
    steps, done = 0, False
    while not done:
        _, _, done, _ = env.step(actions[steps].tolist())
        steps += 1
    env.close()
    return steps


def eval_counts(actions: np.ndarray, max_steps: int, tmp_path: Path) -> tuple[bool | None, int]:
    """Success and steps as an evaluation records them."""
    np.save(tmp_path / "actions.npy", actions)
    settings = EvalSettings(
        task_suite=TASK.suite,
        task_ids=(TASK.task_id,),
        policy=f"replay:{tmp_path / 'actions.npy'}",
        episodes_per_task=1,
        max_episode_steps=max_steps,
        image_size=64,
    )
    path = tmp_path / f"run-{max_steps}"
    path.mkdir()
    folder = EvalFolder(path, vars(settings))
    evaluate(settings, folder, vector={"mode": "sync"}, videos_per_task=0)
    (record,) = folder.records
    assert (record.task_id, record.init_state_id) == (TASK.task_id, STATE)
    return record.success, record.steps


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_recorded_actions_count_the_same_in_liberos_own_loop(libero_env, tmp_path):
    actions = expert_actions(libero_env)
    steps = steps_to_success_in_liberos_loop(actions)
    assert 60 < steps <= len(actions)
    assert eval_counts(actions, TASK.max_episode_steps, tmp_path) == (True, steps)
    # Where LIBERO's loop would have been cut one step earlier, before its `done`, it is a failure here too.
    assert eval_counts(actions, steps - 1, tmp_path) == (False, steps - 1)
