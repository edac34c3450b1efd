"""A scripted env whose steps take time, for measuring what overlaps: `slow_arm:SlowArm-v0`."""

import time

import gymnasium as gym
from scripted_arm import ScriptedArmEnv

STEP_S = 0.1


class SlowArmEnv(ScriptedArmEnv):
    """`ScriptedArmEnv` with steps of a tenth of a second."""

    def step(self, action):
        time.sleep(STEP_S)
        return super().step(action)


gym.register(id="SlowArm-v0", entry_point=SlowArmEnv, order_enforce=False)
