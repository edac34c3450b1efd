"""RLinf's env on real worlds of mujoco-warp, on warp's CPU device: `scripts/test_warp.sh` runs this."""

import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from verl_env_adapter.rlinf.env import RolloutEnv  # noqa: E402

pytestmark = pytest.mark.warp


def config(**changes):
    block = {
        "env": {
            "backend": "warp",
            "scenes": os.environ["VLAC_GYM_TEST_SCENES"],
            "tasks": [3],
            "init_states": {"train": "1", "eval": "0"},
            "cameras": ["agentview", "wrist"],
            "image_size": 64,
            "chunk": 2,
            "kwargs": {"device": "cpu"},
        },
        "critic": {"spec": "scripted:0.1"},
        "rule": {"done_interval": 2},
    }
    plain = {"task_suite_name": "vlac_gym", "max_episode_steps": 4, "is_eval": False, "vlac_gym": block}
    return plain | changes


@pytest.mark.parametrize(("phase", "start", "num_envs"), [("train", 1, 2), ("eval", 0, 1)])
def test_training_and_evaluation_play_worlds_from_their_own_starts(phase, start, num_envs):
    with np.load(Path(os.environ["VLAC_GYM_TEST_SCENES"]) / "libero_spatial_3" / "expert.npz") as arrays:
        recorded = dict(arrays)
    env = RolloutEnv(config(is_eval=phase == "eval"), num_envs, 0, 1)
    observation, _ = env.reset()
    assert (
        observation["task_descriptions"]
        == ["pick up the black bowl on the cookie box and place it on the plate"] * num_envs
    )
    states = observation["states"].numpy()
    assert np.abs(states - recorded[f"states_{start}"][0]).max() < 1e-6
    for camera, name in (("agentview", "main_images"), ("wrist", "wrist_images")):
        upright = observation[name].flip(2).numpy().astype(float)  # RLinf's pictures are mirrored
        apart = np.abs(upright - recorded[f"{camera}_image_{start}"].astype(float)).mean()
        assert apart < 3.0, name
    actions = np.stack([recorded[f"actions_{start}"][:4]] * num_envs).astype(np.float32)
    env.chunk_step(actions[:, :2])
    observations, rewards, terminations, truncations, infos = env.chunk_step(actions[:, 2:])
    assert rewards.tolist() == [[0.0, 0.5 if phase == "train" else 0.0]] * num_envs
    assert not terminations.any()
    assert truncations[:, -1].all()
    assert np.abs(observations[-1]["states"].numpy() - recorded[f"states_{start}"][4]).max() < 1e-3
    assert infos[-1]["episode"]["critic_mode"].tolist() == [float(phase == "train")] * num_envs
    env.close()


def test_several_tasks_share_the_worlds_out_and_start_from_their_own_states():
    cfg = config()
    cfg["vlac_gym"]["env"] |= {"tasks": [3, 0]}
    env = RolloutEnv(cfg, 4, 0, 1)
    observation, _ = env.reset()
    texts, states = observation["task_descriptions"], observation["states"].numpy()
    assert texts[0] == texts[1] == "pick up the black bowl on the cookie box and place it on the plate"
    assert (
        texts[2]
        == texts[3]
        == "pick up the black bowl between the plate and the ramekin and place it on the plate"
    )
    for row, task_id in ((0, 3), (2, 0)):
        folder = Path(os.environ["VLAC_GYM_TEST_SCENES"]) / f"libero_spatial_{task_id}"
        with np.load(folder / "expert.npz") as arrays:
            assert np.abs(states[row : row + 2] - arrays["states_1"][0]).max() < 1e-6
    env.close()
