"""Gymnasium ids of scripted envs, so that processes of their own can make them: `scripted_ids:Scripted-v0`."""

import gymnasium as gym

from vlac_gym.envs.scripted import ScriptedEnv


class PassingSuccessEnv(ScriptedEnv):
    """`ScriptedEnv` whose success neither ends the episode nor lasts; `is_told` False leaves it out elsewhere."""

    def __init__(self, is_told=True, **kwargs):
        super().__init__(**kwargs)
        self._is_told = is_told

    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, False, truncated, info

    def _info(self, step):
        info = super()._info(step)
        if not (self._is_told or info["success"]):
            del info["success"]
        return info


gym.register(id="Scripted-v0", entry_point="vlac_gym.envs.scripted:ScriptedEnv", order_enforce=False)
gym.register(id="PassingSuccess-v0", entry_point=PassingSuccessEnv, order_enforce=False)
