"""Real episodes of the expert, judged by the simulator; nothing is rendered but the first frame."""

import numpy as np

from vlac_gym.metrics.progress import value_order_correlation
from vlac_gym.policies import make_policy


def episode(env, spec, init_state_id, seed=0):
    """(success, goal_progress at every step, stages) of one episode."""
    env.reset(options={"init_state_id": init_state_id})
    base = env.unwrapped
    policy = make_policy(spec)
    policy.reset(env, seed)
    info = base.current_info()
    values, stages = [info["goal_progress"]], []
    while True:
        _, terminated, truncated = base.step_unrendered(policy.act(None, info))
        info = base.current_info()
        values.append(info["goal_progress"])
        stages.append(policy.stage)
        if terminated or truncated:
            return info["success"], np.array(values), stages


def test_the_expert_solves_a_task_and_progress_orders_its_episode(libero_env):
    success, values, stages = episode(libero_env, "expert", init_state_id=1)
    assert success
    assert len(stages) < 150  # of 220
    assert list(dict.fromkeys(stages))[:5] == ["reach", "descend", "grasp", "lift", "carry"]
    assert value_order_correlation(values) >= 0.95
    assert values[-1] == 1.0
    assert values[:-1].max() <= 0.99


def test_a_dropping_expert_fails_and_progress_falls_back(libero_env):
    success, values, stages = episode(libero_env, "expert:noise=0.05,fail=drop", init_state_id=0, seed=3)
    assert not success
    assert stages[-1] == "stop"
    held = values[[stage == "carry" for stage in stages].index(True) + 1]
    assert held > 0.6
    assert values[-1] < 0.35
