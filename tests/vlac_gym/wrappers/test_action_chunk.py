"""Chunks of actions, on a scripted env that counts what is rendered."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError
from vlac_gym.wrappers import ActionChunk, VLACRewardWrapper


class QuietEnv(ScriptedEnv):
    """A scripted env that can step without rendering, and notes the steps it rendered."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rendered: list[int] = []

    def step_unrendered(self, action):
        self._step += 1
        self.num_steps += 1
        succeeds = self._step in self._success_steps
        is_last = self._max_episode_steps is not None and self._step >= self._max_episode_steps
        return float(succeeds), succeeds, is_last

    def current_info(self):
        return self._info(self._step)

    def observe(self):
        self.rendered.append(self._step)
        return self._observation(self._step)

    def render_camera(self, camera):
        assert camera == "agentview"
        self.rendered.append(self._step)
        return self._frame(self._step)


def chunk(length: int) -> np.ndarray:
    return np.zeros((length, 7), np.float32)


def test_chunk_ends_where_the_episode_ends():
    env = ActionChunk(ScriptedEnv(success_steps=[3]), chunk_size=4)
    env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(chunk(4))
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["chunk"]["executed_steps"] == 3
    assert info["chunk"]["rewards"].tolist() == [0.0, 0.0, 1.0]
    assert observation["state"].tolist() == [3.0]
    assert env.unwrapped.num_steps == 3


def test_chunk_of_one_is_a_step():
    env = ActionChunk(ScriptedEnv(success_steps=[1]), chunk_size=4)
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step(chunk(1))
    assert (reward, terminated, info["chunk"]["executed_steps"]) == (1.0, True, 1)


@pytest.mark.parametrize("bad", [np.zeros(7), np.zeros((0, 7)), np.zeros((5, 7)), np.zeros((2, 6))])
def test_wrong_shapes_execute_nothing(bad):
    env = ActionChunk(ScriptedEnv(), chunk_size=4)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"Expected a chunk of shape \(1..4, 7\)"):
        env.step(bad)
    assert env.unwrapped.num_steps == 0


def test_bad_construction_is_refused():
    with pytest.raises(ConfigError, match="chunk_size"):
        ActionChunk(ScriptedEnv(), chunk_size=0)
    with pytest.raises(ConfigError, match="Box action"):
        ActionChunk(gym.make("CartPole-v1"), chunk_size=2)


def test_unchecked_steps_are_never_rendered():
    critic = ScriptedCritic(success_probs=[0.0, 0.95])
    env = ActionChunk(VLACRewardWrapper(QuietEnv(), critic, done_interval=4, value_stride=100), chunk_size=4)
    env.reset(seed=0)
    rendered = env.unwrapped.rendered
    rendered.clear()
    env.step(chunk(4))
    assert set(rendered) == {4}
    _, reward, terminated, _, _ = env.step(chunk(4))
    assert (reward, terminated) == (1.0, True)
    assert set(rendered) == {4, 8}


def test_stride_frames_are_rendered_inside_a_chunk():
    critic = ScriptedCritic(success_probs=[0.0], values=[[0.0, 0.25, 0.5]])
    env = ActionChunk(
        VLACRewardWrapper(QuietEnv(max_episode_steps=6), critic, done_interval=6, value_stride=4),
        chunk_size=6,
    )
    env.reset(seed=0)
    env.unwrapped.rendered.clear()
    _, reward, _, truncated, _ = env.step(chunk(6))
    assert (reward, truncated) == (0.5, True)
    assert set(env.unwrapped.rendered) == {4, 6}


def rollout(env: gym.Env, actions: int, size: int | None) -> list:
    """Every env step's reward and the ends, chunked or not."""
    env.reset(seed=0)
    rewards: list[float] = []
    for _ in range(actions if size is None else actions // size):
        if size is None:
            _, reward, terminated, truncated, info = env.step(np.zeros(7, np.float32))
            rewards.append(reward)
        else:
            _, _, terminated, truncated, info = env.step(chunk(size))
            rewards += info["chunk"]["rewards"].tolist()
        if terminated or truncated:
            break
    return [rewards, terminated, truncated, info["critic"]["values"]]


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("preset", ["vlac", "dense", "pbrs"])
def test_chunks_pay_what_single_steps_pay(preset, size):
    def build(env: gym.Env) -> gym.Env:
        critic = ScriptedCritic([0.1, 0.2, 0.3, 0.4] * 2, [0.25, -0.125] * 4, [[0.0, 0.25, 0.5]])
        return VLACRewardWrapper(env, critic, preset=preset)

    single = rollout(build(ScriptedEnv(max_episode_steps=8)), 8, None)
    chunked = rollout(ActionChunk(build(QuietEnv(max_episode_steps=8)), size), 8, size)
    assert chunked == single


def test_a_wrapper_that_changes_observations_sees_every_step():
    class Counting(gym.ObservationWrapper):
        seen = 0

        def observation(self, observation):
            type(self).seen += 1
            return observation

    env = ActionChunk(Counting(QuietEnv()), chunk_size=4)
    env.reset(seed=0)
    env.step(chunk(4))
    assert Counting.seen == 5


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_chunk_with_a_bad_row_executes_none_of_it(mode):
    env = VLACRewardWrapper(QuietEnv(), ScriptedCritic(success_probs=[0.1] * 3), mode=mode)
    env = ActionChunk(env, chunk_size=3)
    env.reset(seed=0)
    bad = chunk(3)
    bad[2, 1] = np.nan
    with pytest.raises(ConfigError, match="finite action"):
        env.step(bad)
    assert env.unwrapped.num_steps == 0
    assert env.step(chunk(3))[4]["elapsed_steps"] == 3
