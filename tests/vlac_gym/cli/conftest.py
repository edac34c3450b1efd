"""A rollout whose env follows a script, so that what the command does can be checked by hand in a second."""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import pytest

from vlac_gym.cli import rollout
from vlac_gym.envs.scripted import ScriptedEnv


class ScriptedLibero(ScriptedEnv):
    """`ScriptedEnv` with LIBERO's arguments and `info`; success at step 4."""

    reset_calls: list[dict[str, Any]]
    cameras: tuple[str, ...]

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


@pytest.fixture
def scripted_libero(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Lets `vlac-gym rollout` run the scripted env; returns the resets it received."""
    env_id = "vlac_gym_tests/ScriptedLibero-v0"
    gym.register(env_id, entry_point=ScriptedLibero)
    monkeypatch.setattr(rollout, "LIBERO_ENV_ID", env_id)
    ScriptedLibero.reset_calls = []
    yield lambda: ScriptedLibero.reset_calls
    del gym.registry[env_id]
