"""Synthetic recordings whose every number is known: `record`, `record_bank`, and fixtures of both for a conftest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vlac_gym.data import EpisodeDataset, EpisodeMeta, write_episode
from vlac_gym.data.recorder import EpisodeRecorder

STEPS = 40
SUCCESS_STEP = 25


def record(
    root: Path,
    task_id: int,
    init_state_id: int,
    *,
    succeeds: bool,
    undone: bool = False,
    kind: str = "none",
    policy: str = "expert",
    views: tuple[str, ...] = ("agentview",),
    wall_s: float | None = None,
) -> None:
    """40 steps with a frame each; progress rises by 0.02 a step, success from step 25 (to 35 if undone).

    Every frame is different: its first pixels spell task, start, outcome and step. The view `wrist` is blind to
    success; all others show the same.
    """
    meta = EpisodeMeta(
        "libero_spatial", task_id, f"pick up the bowl {task_id} and place it on the plate", init_state_id,
        policy=policy, imperfection=kind, encoding="png",
    )  # fmt: skip
    recorder = EpisodeRecorder(meta)
    for step in range(STEPS + 1):
        success = succeeds and step >= SUCCESS_STEP and not (undone and step >= 35)
        frame = np.zeros((8, 8, 3), np.uint8)
        frame[0, 0] = (task_id, init_state_id, 10 * succeeds + 20 * undone + len(kind))
        frame[0, 1] = (step, 255 * success, 0)
        blind = frame.copy()
        blind[0, 1, 1] = 0
        recorder.add(
            np.zeros(8),
            {"success": success, "goal_progress": 1.0 if success else min(0.02 * step, 0.9)},
            {view: blind if view == "wrist" else frame for view in views},
            action=np.zeros(7) if step else None,
        )
    write_episode(root, recorder.finish() if wall_s is None else recorder.finish(wall_s=wall_s))


def record_bank(root: Path) -> None:
    """4 tasks x 6 starts, each start with a success (one in three undone) and a failure: 48 episodes."""
    for task_id in range(4):
        for start in range(6):
            record(root, task_id, start, succeeds=True, undone=start % 3 == 0)
            record(root, task_id, start, succeeds=False, kind="stop")


@pytest.fixture(name="record")
def record_fixture() -> Callable[..., None]:
    """`record`, for tests that need other episodes than the bank's."""
    return record


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> EpisodeDataset:
    """`record_bank`'s 48 episodes."""
    root = tmp_path_factory.mktemp("bank")
    record_bank(root)
    return EpisodeDataset.open(root)
