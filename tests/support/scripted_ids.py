"""Gymnasium ids of scripted envs, so that processes of their own can make them: `scripted_ids:Scripted-v0`."""

import gymnasium as gym

gym.register(id="Scripted-v0", entry_point="vlac_gym.envs.scripted:ScriptedEnv", order_enforce=False)
