"""Stepping some envs of a vector env: the others are left untouched, whoever ends episodes."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from vector_envs import LookingCritic, ShadedEnv, digest, per_env

from vlac_gym.errors import ConfigError
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers import VLACRewardWrapper as SingleWrapper
from vlac_gym.wrappers.vector import VLACRewardWrapper

LENGTHS = (3, 5, 2)
RULE = {"done_interval": 2, "value_stride": 2}


def env_fns() -> list:
    return [partial(ShadedEnv, shade=i, max_episode_steps=n) for i, n in enumerate(LENGTHS)]


def build(mode: str, autoreset: str) -> tuple[Any, LookingCritic]:
    critic = LookingCritic(done_share=0.2)
    env = RolloutVectorEnv(env_fns(), mode="sync", autoreset_mode=autoreset)
    return VLACRewardWrapper(env, critic, mode=mode, **RULE), critic


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_each_env_goes_through_its_own_episodes_whenever_it_is_stepped(mode):
    env, critic = build(mode, "Disabled")
    singles = [SingleWrapper(fn(), LookingCritic(done_share=0.2), mode=mode, **RULE) for fn in env_fns()]
    env.reset(seed=3)
    for i, single in enumerate(singles):
        single.reset(seed=3 + i)
    over = np.zeros(3, np.bool_)
    for mask in np.array([[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 0], [0, 0, 0]], bool):
        critic.seen.clear()
        result = env.step_chunk(np.zeros((3, 1, 7), np.float32), mask)
        moves = mask & ~over
        assert result.executed_steps.tolist() == moves.tolist()
        assert {shade for seen in critic.seen for shade, _, _ in seen} <= set(np.flatnonzero(moves).tolist())
        infos = per_env(result.infos, 3)
        for i in np.flatnonzero(moves):
            observation, reward, terminated, truncated, info = singles[i].step(np.zeros(7, np.float32))
            assert digest({k: v[i] for k, v in result.observations.items()}) == digest(observation)
            assert (result.rewards[i, 0], infos[i]["critic"] if mode == "train" else None) == (
                reward,
                {k: v for k, v in info["critic"].items() if v is not None} if mode == "train" else None,
            )
            assert (result.terminations[i], result.truncations[i]) == (terminated, truncated)
            over[i] = terminated or truncated
        assert (result.terminations | result.truncations).tolist() == over.tolist()
        assert all(not infos[i] for i in np.flatnonzero(~moves))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(("autoreset", "resets"), [("NextStep", 1), ("SameStep", 1), ("Disabled", 0)])
def test_an_env_that_is_left_out_is_not_reset_either(mode, autoreset, resets):
    env, _ = build(mode, autoreset)
    env.reset(seed=0, options={"mode": mode})
    ended = env.step_chunk(np.zeros((3, 2, 7), np.float32), np.array([False, False, True]))
    assert (ended.terminations | ended.truncations).tolist() == [False, False, True]
    episodes = env.env.get_attr("num_resets")
    env.step_chunk(np.zeros((3, 1, 7), np.float32), np.array([True, True, False]))
    assert env.env.get_attr("num_resets") == episodes
    env.step_chunk(np.zeros((3, 1, 7), np.float32))
    assert env.env.get_attr("num_resets")[2] == 1 + resets


@pytest.mark.parametrize("mask", [[1, 0, 1], [True, False], np.ones((3, 1), bool)])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_another_mask_is_refused_and_nothing_moves(mode, mask):
    env, _ = build(mode, "Disabled")
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"(?s)Expected mask as bool \(3,\), got .* nothing moved"):
        env.step_chunk(np.zeros((3, 1, 7), np.float32), mask)
    assert env.env.get_attr("num_steps") == (0, 0, 0)
    env.step(np.zeros((3, 7), np.float32))
