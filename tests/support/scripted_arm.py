"""Scripted envs with LIBERO's whole observation, so that adapters meet every key: `scripted_arm:ScriptedArm-v0`."""

import gymnasium as gym
import numpy as np

from vlac_gym.envs.scripted import ScriptedEnv


class ScriptedArmEnv(ScriptedEnv):
    """`ScriptedEnv` with a wrist picture (the agentview's bytes plus 100) and a state of eight numbers.

    State at step t: (t, 1, 2, 3, 4, 5, 6, 7). `step_reward` is what the simulator pays at each step besides the 1
    for its success, as simulators with dense rewards do.
    """

    def __init__(self, step_reward=0.0, **kwargs):
        super().__init__(**kwargs)
        self._step_reward = step_reward
        spaces = dict(self.observation_space.spaces)
        spaces["wrist_image"] = spaces["agentview_image"]
        spaces["state"] = gym.spaces.Box(-np.inf, np.inf, (8,), np.float32)
        self.observation_space = gym.spaces.Dict(spaces)

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward + self._step_reward, terminated, truncated, info

    def _observation(self, step):
        frame = self._frame(step)
        state = np.arange(8, dtype=np.float32)
        state[0] = step
        return {"agentview_image": frame, "wrist_image": frame + np.uint8(100), "state": state}


gym.register(id="ScriptedArm-v0", entry_point=ScriptedArmEnv, order_enforce=False)
