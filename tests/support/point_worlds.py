"""A point that moves along a line, as worlds that move together and as an env of its own: the same task twice."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from vlac_gym.envs.libero.spaces import action_space, observation_space

SIZE = 16
GOAL = 0.5
STARTS = (0.0, 0.1, 0.2)
TASK = {
    "task": "push the point",
    "suite": "points",
    "task_id": 7,
    "max_episode_steps": 6,
    "num_starts": len(STARTS),
}
OTHER_STARTS = (0.3, 0.05)
OTHER_TASK = {
    "task": "push the other point",
    "suite": "points",
    "task_id": 8,
    "max_episode_steps": 4,
    "num_starts": len(OTHER_STARTS),
}
STARTS_OF = {7: STARTS, 8: OTHER_STARTS}
CAMERA_LEVELS = {"agentview": 0, "robot0_eye_in_hand": 100}
BREAKS = 0.99
"""An action whose second number is larger breaks the simulation."""


def moved(place: np.ndarray, actions: np.ndarray) -> np.ndarray:
    return (place + 0.25 * np.clip(actions[..., 0], -1, 1)).astype(np.float32)


def picture(place: np.ndarray, level: int) -> np.ndarray:
    shade = (level + np.round(100 * place)).astype(np.uint8)
    return np.broadcast_to(shade[..., None, None, None], (*shade.shape, SIZE, SIZE, 3)).copy()


def state(place: np.ndarray) -> np.ndarray:
    return np.repeat(place[..., None], 8, axis=-1).astype(np.float32)


class PointWorlds:
    """N points, each of a task; see `vlac_gym.vector.world_envs.Worlds`.

    `num_draws` counts the pictures asked for, by camera; `before_read` is called before it is told how a step ended.
    """

    def __init__(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        self.num_worlds = num_worlds = len(tasks)
        self._starts = [STARTS_OF[task["task_id"]] for task in tasks]
        self.num_draws = dict.fromkeys(CAMERA_LEVELS, 0)
        self.num_steps = 0
        self.before_read: Callable[[], None] = lambda: None
        self.num_crowded = 0
        self._place = np.full(num_worlds, STARTS[0], np.float32)
        self._failed = np.zeros(num_worlds, bool)

    def start(self, rows: np.ndarray) -> None:
        chosen = rows >= 0
        for world in np.flatnonzero(chosen):
            self._place[world] = self._starts[world][rows[world]]
        self._failed[chosen] = False

    def step(self, actions: np.ndarray, active: np.ndarray) -> None:
        breaks = active & (actions[:, 1] > BREAKS)
        moves = active & ~breaks
        self.num_steps += 1
        self._failed |= breaks
        self._place[moves] = moved(self._place, actions)[moves]

    def success(self) -> np.ndarray:
        self.before_read()
        return self._place >= GOAL

    def failed(self) -> np.ndarray:
        return self._failed.copy()

    def crowded(self) -> np.ndarray:
        return np.arange(self.num_worlds) < self.num_crowded

    def proprioception(self) -> np.ndarray:
        return state(self._place)

    def pictures(self, cameras: Sequence[str]) -> list[np.ndarray]:
        for camera in cameras:
            self.num_draws[camera] += 1
        return [picture(self._place, CAMERA_LEVELS[camera]) for camera in cameras]


class PointEnv(gym.Env):
    """One point, by Gymnasium's interface."""

    metadata = {"render_modes": [], "render_fps": 20, "renderer": "mujoco-warp"}

    def __init__(self, task: Mapping[str, Any] = TASK) -> None:
        self.cameras, self.task, self.starts = ("agentview", "wrist"), task, STARTS_OF[task["task_id"]]
        self.observation_space, self.action_space = observation_space(self.cameras, SIZE), action_space()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        chosen = (options or {}).get("init_state_id")
        self.start = int(self.np_random.integers(len(self.starts))) if chosen is None else chosen
        self.place, self.elapsed = np.float32(self.starts[self.start]), 0
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> Any:
        self.place, self.elapsed = moved(self.place, np.asarray(action, np.float32)), self.elapsed + 1
        success = bool(self.place >= GOAL)
        is_over = self.elapsed >= self.task["max_episode_steps"]
        return self._observation(), float(success), success, is_over, self._info()

    def _observation(self) -> dict[str, np.ndarray]:
        levels = dict(zip(("agentview", "wrist"), CAMERA_LEVELS.values(), strict=True))
        place = np.asarray(self.place)
        seen = {f"{camera}_image": picture(place, levels[camera]) for camera in self.cameras}
        return seen | {"state": state(place)}

    def _info(self) -> dict[str, Any]:
        return {
            "task": self.task["task"],
            "task_suite": self.task["suite"],
            "task_id": self.task["task_id"],
            "init_state_id": self.start,
            "success": bool(self.place >= GOAL),
            "elapsed_steps": self.elapsed,
        }
