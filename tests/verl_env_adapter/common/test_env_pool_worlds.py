"""An adapter's env on real worlds of mujoco-warp, on warp's CPU device: `scripts/test_warp.sh` runs this."""

import os
from pathlib import Path

import numpy as np
import pytest

from verl_env_adapter.common.env_pool import EnvPool
from verl_env_adapter.common.settings import parse_settings
from verl_env_adapter.common.start_states import start_counts
from vlac_gym.errors import ConfigError

pytestmark = pytest.mark.warp


@pytest.fixture(scope="module")
def settings():
    block = {
        "env": {
            "backend": "warp",
            "scenes": os.environ["VLAC_GYM_TEST_SCENES"],
            "tasks": [3],
            "cameras": ["agentview"],
            "image_size": 64,
            "chunk": 3,
            "max_episode_steps": 5,
            "kwargs": {"device": "cpu"},
        },
        "critic": {"spec": "scripted:0.1"},
    }
    return parse_settings(block)


@pytest.fixture(scope="module")
def pool(settings):
    pool = EnvPool(settings, 2, isolated=True)
    yield pool
    pool.close()


def test_worlds_start_and_move_as_the_env_and_are_judged_by_the_critic(pool):
    with np.load(Path(os.environ["VLAC_GYM_TEST_SCENES"]) / "libero_spatial_3" / "expert.npz") as arrays:
        recorded = dict(arrays)
    starts = [{"task_id": 3, "init_state_id": start} for start in (1, 0)]
    for report, start in zip(pool.reset(mode="train", options=starts), (1, 0), strict=True):
        assert np.abs(report.observation["state"] - recorded[f"states_{start}"][0]).max() < 1e-6
        assert list(report.observation) == ["agentview_image", "state"]
        assert (report.info["task_id"], report.info["init_state_id"]) == (3, start)
    actions = np.stack([recorded["actions_1"][:6], recorded["actions_0"][:6]]).astype(np.float32)
    assert pool.step_chunk(actions[:, :3]).rewards.tolist() == [[0.0] * 3] * 2
    last = pool.step_chunk(actions[:, 3:])
    assert last.rewards.tolist() == [[0.0, 0.5, 0.0]] * 2  # at the limit of five steps, paid by the critic
    for report, start in zip(last.reports, (1, 0), strict=True):
        assert np.abs(report.observation["state"] - recorded[f"states_{start}"][5]).max() < 1e-3
        assert report.truncated


def test_worlds_keep_their_task_and_their_starts(settings, pool):
    assert start_counts(settings.env) == {3: 2}
    with pytest.raises(ConfigError, match="Expected task_id 3, got 0: a world keeps its task"):
        pool.reset(mode="eval", options=[{"task_id": 0}] * 2)
    with pytest.raises(ConfigError, match="0 to 1 of libero_spatial 3"):
        pool.reset(mode="eval", options=[{"init_state_id": 7}] * 2)
