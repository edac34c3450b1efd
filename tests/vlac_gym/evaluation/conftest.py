"""Evaluations in an env without physics."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from reaching import SETTINGS, ReachingEnv

from vlac_gym.evaluation.folder import EvalFolder
from vlac_gym.evaluation.run import EvalSettings, evaluate


@pytest.fixture
def run_eval(tmp_path: Path) -> Any:
    """Evaluates in `ReachingEnv`, all envs in this process; returns results and folder."""

    def run(
        name: str, settings: EvalSettings = SETTINGS, env: dict[str, Any] | None = None, **options: Any
    ) -> Any:
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        folder = EvalFolder(path, {**vars(settings)})
        results = evaluate(
            settings,
            folder,
            env_fn=partial(ReachingEnv, **(env or {})),
            vector={"mode": "sync"},
            **{"videos_per_task": 0, **options},
        )
        return results, folder

    return run
