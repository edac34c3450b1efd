"""What an env returns comes in Python's own types, whatever it made of them."""

import numpy as np
import pytest
from gymnasium import RewardWrapper

from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.stepping.unrendered_steps import UnrenderedSteps


class _Pays(RewardWrapper):
    def __init__(self, reward):
        super().__init__(ScriptedEnv())
        self._reward = reward

    def reward(self, reward):
        return self._reward


@pytest.mark.parametrize(
    "reward", [0.5, np.float64(0.5), np.float32(0.5), np.array([0.5], np.float32)], ids=repr
)
def test_a_reward_in_any_form_is_a_float(reward):
    env = _Pays(reward)
    env.reset(seed=0)
    paid = UnrenderedSteps(env).step(np.zeros(7, np.float32))[0]
    assert (type(paid), paid) == (float, 0.5)
