"""A scripted env whose steps take time, for measuring what overlaps: `slow_arm:SlowArm-v0`."""

import time

import gymnasium as gym
from scripted_arm import ScriptedArmEnv

STEP_S = 0.1


class SlowArmEnv(ScriptedArmEnv):
    """`ScriptedArmEnv` with steps of a tenth of a second and no step limit of its own."""

    def __init__(self, max_episode_steps=None, **kwargs):
        super().__init__(max_episode_steps=max_episode_steps, **kwargs)

    def step(self, action):
        time.sleep(STEP_S)
        return super().step(action)


gym.register(id="SlowArm-v0", entry_point=SlowArmEnv, order_enforce=False)
