"""Every registered env keeps Gymnasium's contract."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import vlac_gym


def test_the_id_is_registered_once():
    ours = [name for name in gym.registry if name.startswith("vlac_gym/")]
    assert vlac_gym.LIBERO_ENV_ID in ours
    assert len(ours) == len(set(ours))


def test_libero_passes_gymnasiums_checker(libero_env):
    # A second env of the same task shares the compiled model, so the checker's own copies start quickly.
    env = gym.make(vlac_gym.LIBERO_ENV_ID, image_size=32, cameras=("agentview",), settle_steps=1)
    check_env(env.unwrapped, skip_render_check=False, skip_close_check=False)


def test_libero_observations_are_of_the_space_in_the_passive_checker(libero_env):
    env = gym.make(vlac_gym.LIBERO_ENV_ID, image_size=32, cameras=("wrist",), settle_steps=0)
    observation, _ = env.reset(seed=1)
    assert observation in env.observation_space
    observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    assert observation in env.observation_space
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert env.render().shape == (32, 32, 3)
    env.close()


def test_make_vec_runs_libero_synchronously(libero_env):
    envs = gym.make_vec(
        vlac_gym.LIBERO_ENV_ID,
        num_envs=2,
        vectorization_mode="sync",
        image_size=32,
        cameras=("agentview",),
        settle_steps=0,
    )
    observations, infos = envs.reset(seed=[1, 2])
    assert observations["agentview_image"].shape == (2, 32, 32, 3)
    assert infos["task_id"].tolist() == [0, 0]
    _, rewards, terminations, truncations, _ = envs.step(np.zeros((2, 7), dtype=np.float32))
    assert rewards.tolist() == [0.0, 0.0]
    assert not terminations.any()
    assert not truncations.any()
    envs.close()


@pytest.mark.slow
def test_make_vec_runs_libero_in_worker_processes():
    envs = gym.make_vec(
        vlac_gym.LIBERO_ENV_ID,
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"context": "spawn"},
        image_size=32,
        cameras=("agentview",),
    )
    _, infos = envs.reset(seed=[1, 2])
    assert infos["task_id"].tolist() == [0, 0]
    envs.step(envs.action_space.sample())
    envs.close()
