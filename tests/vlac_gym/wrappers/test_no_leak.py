"""In train mode nothing the policy sees depends on the simulator's success, reward or termination."""

from typing import Any

import gymnasium as gym
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.types import CriticInfo
from vlac_gym.wrappers import VLACRewardWrapper

LENGTH = 8


class LookingCritic:
    """Answers from the picture alone, so that any influence of the simulator would have to leak."""

    def success_prob(self, frames, tasks):
        return np.array([(37 * int(frame[0, 0, 2]) % 101) / 100 for frame in frames], np.float32)

    def progress(self, before, after, tasks, references=None):
        return np.array([(int(b[0, 0, 2]) - int(a[0, 0, 2])) / 16 for a, b in zip(before, after)], np.float32)

    def value(self, frames, task, references=None):
        return np.array([int(frame[0, 0, 2]) / 32 for frame in frames], np.float32)

    def describe(self):
        return CriticInfo(name="looking")

    def close(self):
        pass


class Perturbed(gym.Wrapper):
    """Replaces the simulator's signals at every step by given ones."""

    def __init__(self, env: gym.Env, signals: list[tuple[bool, float, bool, float]]) -> None:
        super().__init__(env)
        self._signals = signals
        self._step = 0

    def step(self, action: Any):
        observation, _, _, truncated, info = self.env.step(action)
        success, reward, terminated, progress = self._signals[self._step]
        self._step += 1
        info |= {"success": success, "is_success": success, "goal_progress": progress}
        return observation, reward, terminated, truncated, info


def visible(signals: list, preset: str, interval: int) -> list:
    env = VLACRewardWrapper(
        Perturbed(ScriptedEnv(max_episode_steps=LENGTH), signals),
        LookingCritic(),
        preset=preset,
        done_interval=interval,
        milestone_interval=2 * interval,
    )
    observation, info = env.reset(seed=0)
    seen = [(observation["agentview_image"].tobytes(), "success" in info, "goal_progress" in info)]
    for _ in range(LENGTH):
        observation, reward, terminated, truncated, info = env.step(np.zeros(7, np.float32))
        assert not {"success", "is_success", "goal_progress"} & set(info)
        seen.append(
            (
                observation["agentview_image"].tobytes(),
                observation["state"].tobytes(),
                np.float64(reward).tobytes(),
                terminated,
                truncated,
                info["critic"],
            )
        )
        if terminated or truncated:
            break
    return seen


signal = st.tuples(
    st.booleans(), st.floats(-1e3, 1e3, allow_nan=False), st.booleans(), st.floats(0, 1, allow_nan=False)
)


@settings(max_examples=150, deadline=None)
@given(
    signals=st.lists(signal, min_size=LENGTH, max_size=LENGTH),
    preset=st.sampled_from(["vlac", "dense", "pbrs", "evolve"]),
    interval=st.integers(1, 4),
)
def test_perturbed_simulator_signals_change_nothing_that_is_visible(signals, preset, interval):
    silent = [(False, 0.0, False, 0.0)] * LENGTH
    assert visible(signals, preset, interval) == visible(silent, preset, interval)
