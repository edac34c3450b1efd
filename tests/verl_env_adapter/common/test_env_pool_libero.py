"""An adapter's env on real LIBERO: eval mode is bit for bit the simulator, train mode the critic's."""

import numpy as np
import pytest

from verl_env_adapter.common.env_pool import EnvPool
from verl_env_adapter.common.settings import parse_settings


@pytest.fixture(scope="module")
def pool():
    block = {
        "env": {"cameras": ["agentview", "wrist"], "image_size": 64, "chunk": 3, "max_episode_steps": 5},
        "critic": {"spec": "scripted:0.1"},
    }
    pool = EnvPool(parse_settings(block), 1)
    yield pool
    pool.close()


def start(pool, mode):
    return pool.reset(mode=mode, options=[{"task_id": 0, "init_state_id": 2}])[0]


def step(pool, chunk):
    return pool.step_chunk(chunk[None]).reports[0]


def actions() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (5, 7)).astype(np.float32)


def test_eval_mode_is_the_simulator_bit_for_bit(pool, libero_env):
    observation, info = libero_env.reset(options={"task_id": 0, "init_state_id": 2})
    report = start(pool, "eval")
    assert report.task == info["task"]
    assert all(np.array_equal(report.observation[key], observation[key]) for key in observation)
    rewards = []
    for action in actions():
        observation, reward, _, _, info = libero_env.step(action)
        rewards.append(reward)
    first = step(pool, actions()[:3])
    last = step(pool, actions()[3:])
    assert [*first.rewards, *last.rewards] == rewards
    assert all(np.array_equal(last.observation[key], observation[key]) for key in observation)
    assert {key: last.info[key] for key in info} == info
    assert (last.terminated, last.truncated, last.critic_done) == (False, True, False)


def test_train_mode_pays_the_critics_value_and_shows_the_same_pictures(pool):
    start(pool, "eval")
    step(pool, actions()[:3])
    evaluated = step(pool, actions()[3:])
    start(pool, "train")
    step(pool, actions()[:3])
    trained = step(pool, actions()[3:])
    assert trained.rewards.tolist() == [0.0, 0.5]
    assert trained.sim_success is False
    assert "success" not in trained.info
    for key, value in evaluated.observation.items():
        assert np.array_equal(trained.observation[key], value)
