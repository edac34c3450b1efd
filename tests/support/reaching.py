"""An env without physics for evaluations, whose outcome follows from start and actions, and policies for it."""

import time
from typing import Any

import gymnasium as gym
import numpy as np

from vlac_gym.errors import SimulatorError
from vlac_gym.evaluation.run import EvalSettings
from vlac_gym.policies.simple import RandomPolicy

SETTINGS = EvalSettings(
    task_suite="libero_spatial", task_ids=(0, 1, 4), policy="reaching:HalfSpeed", episodes_per_task=6, seed=3
)
"""18 episodes."""


class ReachingEnv(gym.Env[Any, Any]):
    """A point moves along x by action[0] and must reach 1 + 0.5 * init_state_id + 0.25 * task_id within the limit.

    Args:
        limit: Step limit.
        step_s: How long a step takes.
        fails_at: (task, state) whose simulator fails at step 2, or None.
    """

    def __init__(self, limit: int = 12, step_s: float = 0.0, fails_at: tuple[int, int] | None = None) -> None:
        self.observation_space = gym.spaces.Dict(
            {
                "agentview_image": gym.spaces.Box(0, 255, (16, 16, 3), np.uint8),
                "state": gym.spaces.Box(-100, 100, (8,), np.float32),
            }
        )
        self.action_space = gym.spaces.Box(-1, 1, (7,), np.float32)
        self._limit, self._step_s, self._fails_at = limit, step_s, fails_at
        self._task = 0
        self.resets: list[tuple[int, int]] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._task = (options or {}).get("task_id", self._task)
        self._state = (options or {}).get("init_state_id", 0)
        self.goal = 1 + 0.5 * self._state + 0.25 * self._task
        self._x, self._steps = 0.0, 0
        self.resets.append((self._task, self._state))
        return self.observe(), self.current_info()

    def step(self, action):
        outcome = self.step_unrendered(action)
        return self.observe(), *outcome, self.current_info()

    def step_unrendered(self, action):
        time.sleep(self._step_s)
        self._x += float(action[0])
        self._steps += 1
        if (self._task, self._state) == self._fails_at and self._steps == 2:
            raise SimulatorError("the physics became unstable")
        return float(self.is_there), self.is_there, self._steps >= self._limit

    def observe(self):
        frame = np.full((16, 16, 3), 20 * self._steps, np.uint8)
        return {"agentview_image": frame, "state": np.full(8, self._x, np.float32)}

    def current_info(self):
        return {
            "task": f"reach for task {self._task}",
            "success": self.is_there,
            "init_state_id": self._state,
        }

    @property
    def is_there(self) -> bool:
        return self._x >= self.goal - 1e-6


class HalfSpeed(RandomPolicy):
    """Random actions between 0 and 1 from the episode's seed: the outcome tells whether it was used."""

    def act(self, obs, info):
        action = super().act(obs, info)
        action[0] = abs(action[0])
        return action


class GoalReader:
    """Reads the goal in the env and stops there; privileged."""

    is_privileged = True
    cameras = ("agentview",)

    def reset(self, env, seed=None):
        self._env = env.unwrapped

    def act(self, obs, info):
        assert obs is None
        left = self._env.goal - self._env._x
        return np.array([min(0.5, left), 0, 0, 0, 0, 0, 0], np.float32)


class SteadyChunks:
    """A model of preset-less chunks: 3 steps of `speed` at a time, for all envs at once."""

    def __init__(self, speed: float = 0.5) -> None:
        self.speed = speed
        self.asked: list[int] = []

    def reset(self, env, seed=None):
        pass

    def act(self, obs, info):
        raise AssertionError("a chunk policy is asked for chunks")

    def plan(self, observations, infos):
        self.asked.append(len(observations))
        assert all(info["task"].startswith("reach for") for info in infos)
        return [np.tile(np.float32([self.speed, 0, 0, 0, 0, 0, 0]), (3, 1)) for _ in observations]

    def close(self):
        self.asked.append(-1)
