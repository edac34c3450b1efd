"""`make_vec` on the real simulator: two workers, small pictures, few steps."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import vlac_gym
from vlac_gym.critic.oracle import OracleCritic
from vlac_gym.errors import ConfigError
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers import ActionChunk as SingleChunk
from vlac_gym.wrappers import VLACRewardWrapper as SingleWrapper
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper


@pytest.fixture(scope="module")
def vec() -> Iterator[RolloutVectorEnv]:
    """Two workers, both on libero_spatial task 0; every test resets them first."""
    env = vlac_gym.make_vec("libero_spatial", 0, 2, image_size=64, autoreset_mode="Disabled")
    yield env
    env.close()


def moves(count: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, length, 7)).astype(np.float32)


def test_gymnasiums_make_vec_makes_the_same_with_the_same_arguments():
    options: dict[str, Any] = {
        "task_ids": (0, 3),
        "mode": "sync",
        "autoreset_mode": "SameStep",
        "group_size": 2,
    }
    theirs = gym.make_vec("vlac_gym/Libero-v0", num_envs=8, image_size=64, **options)
    ours = vlac_gym.make_vec(num_envs=8, image_size=64, **options)
    assert isinstance(theirs, RolloutVectorEnv)
    assert [fn.args for fn in theirs.env_fns] == [fn.args for fn in ours.env_fns]
    assert [fn.keywords for fn in theirs.env_fns] == [{"image_size": 64}] * 8
    assert (theirs.num_envs, theirs.group_size, theirs.autoreset_mode.value) == (8, 2, "SameStep")
    assert theirs.observation_space == ours.observation_space
    with pytest.raises(ConfigError, match=r"Expected task_ids, which .*, got task_id=3"):
        gym.make_vec("vlac_gym/Libero-v0", num_envs=2, task_id=3)


def test_workers_give_bitwise_what_a_single_env_gives(vec, libero_env):
    actions = moves(2, 3)
    observations, infos = vec.reset(seed=0, options={"init_state_id": [0, 7]})
    assert infos["init_state_id"].tolist() == [0, 7]
    result = vec.step_chunk(actions)
    for i, init_state_id in enumerate([0, 7]):
        observation, info = libero_env.reset(options={"init_state_id": init_state_id})
        for key in observation:
            assert np.array_equal(observations[key][i], observation[key]), key
        for action in actions[i]:
            observation, _, _, _, info = libero_env.step(action)
        for key in observation:
            assert np.array_equal(result.observations[key][i], observation[key]), key
        for key in ("task", "goal_progress", "elapsed_steps", "init_state_id"):
            assert result.infos[key][i] == info[key]
    assert result.executed_steps.tolist() == [3, 3]


def test_training_in_chunks_equals_a_single_env(vec, libero_env):
    actions = moves(2, 6)
    options: dict[str, Any] = {"max_episode_steps": 5, "done_interval": 3, "value_stride": 2}
    vector = ActionChunk(VLACRewardWrapper(vec, OracleCritic(), **options), 6)
    vector.reset(seed=0, options={"init_state_id": [0, 7]})
    _, rewards, _, truncations, infos = vector.step(actions)
    assert truncations.tolist() == [True, True]
    for i, init_state_id in enumerate([0, 7]):
        single = SingleChunk(SingleWrapper(libero_env, OracleCritic(), **options), 6)
        single.reset(seed=0, options={"init_state_id": init_state_id})
        _, reward, _, _, info = single.step(actions[i])
        assert rewards[i] == reward
        assert infos["chunk"]["rewards"][i, :5].tolist() == info["chunk"]["rewards"].tolist()
        assert infos["critic"]["values"][i] == info["critic"]["values"]
        assert infos["critic"]["value_frame_steps"][i] == [0, 2, 4, 5]


def test_tasks_are_dealt_to_groups_in_turn_without_starting_anything():
    env = vlac_gym.make_vec("libero_spatial", (3, 5), 8, group_size=2, mode="sync", image_size=16)
    assert [env_fn.args for env_fn in env.env_fns] == [
        ("libero_spatial", task_id) for task_id in (3, 3, 5, 5, 3, 3, 5, 5)
    ]
    everything = vlac_gym.make_vec("libero_spatial", None, 12, mode="sync", image_size=16)
    assert [env_fn.args[1] for env_fn in everything.env_fns] == [*range(10), 0, 1]
    numpys = vlac_gym.make_vec("libero_spatial", np.int64(3), 1, mode="sync", image_size=16)
    assert [env_fn.args[1] for env_fn in numpys.env_fns] == [3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("libero_spacial", 0, 1), "Did you mean 'libero_spatial'"),
        (("libero_spatial", [0, 10], 2), r"task_id in 0\.\.9"),
        (("libero_spatial", [], 2), "at least one task"),
        (("libero_spatial", 0, 0), "at least one task and one env"),
    ],
)
def test_bad_arguments_start_nothing(arguments, message):
    with pytest.raises(ConfigError, match=message):
        vlac_gym.make_vec(*arguments)
    with pytest.raises(ConfigError, match="group_size to divide num_envs 3"):
        vlac_gym.make_vec("libero_spatial", 0, 3, group_size=2)


@pytest.mark.slow
def test_killed_simulator_is_replaced_and_tasks_can_differ():
    env = vlac_gym.make_vec("libero_spatial", (0, 1), 2, image_size=64, autoreset_mode="SameStep")
    try:
        observations, infos = env.reset(seed=0, options={"init_state_id": [2, 3]})
        assert infos["task_id"].tolist() == [0, 1]
        os.kill(env.worker_pids[1], signal.SIGKILL)
        _, _, _, truncations, infos = env.step(moves(2, 1)[:, 0])
        assert infos["lost"].tolist() == [False, True]
        assert truncations.tolist() == [False, True]
        assert infos["task_id"].tolist() == [0, 1]
        again, _ = env.reset(seed=0, options={"init_state_id": [2, 3]})
        for key in observations:
            assert np.array_equal(observations[key], again[key])
        _, infos = env.reset(options={"task_id": [1, 0]})
        assert infos["task_id"].tolist() == [1, 0]
    finally:
        env.close()
