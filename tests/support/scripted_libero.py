"""LIBERO's place taken by a script: `ScriptedLibero`; run as a program, `vlac-gym` with it, whose steps take 10 ms."""

import sys
import time
from typing import Any

import gymnasium as gym

from vlac_gym.cli import main, rollout
from vlac_gym.envs.scripted import ScriptedEnv

ENV_ID = "vlac_gym_tests/ScriptedLibero-v0"


class ScriptedLibero(ScriptedEnv):
    """`ScriptedEnv` with LIBERO's arguments and `info`; success at step 4."""

    reset_calls: list[dict[str, Any]]
    cameras: tuple[str, ...]
    step_s = 0.0

    def __init__(
        self, task_suite: str, task_id: int, init_state_id: int | None, cameras: tuple[str, ...], **_: Any
    ) -> None:
        type(self).cameras = cameras
        super().__init__(
            success_steps=[4, 5, 6], max_episode_steps=None, goal_progress=[0.0, 0.2, 0.4, 0.8, 1.0]
        )
        self._facts = {"task_suite": task_suite, "task_id": task_id}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        type(self).reset_calls.append({"seed": seed, **(options or {})})
        observation, info = super().reset(seed=seed)
        return observation, info | self._facts | {"init_state_id": (options or {})["init_state_id"]}

    def step(self, action: Any) -> Any:
        time.sleep(self.step_s)
        return super().step(action)


def register() -> None:
    """Makes it known to Gymnasium."""
    gym.register(ENV_ID, entry_point=ScriptedLibero)


if __name__ == "__main__":
    register()
    rollout.LIBERO_ENV_ID = ENV_ID
    ScriptedLibero.reset_calls, ScriptedLibero.step_s = [], 0.01
    sys.exit(main(sys.argv[1:]))
