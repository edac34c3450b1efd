"""Filtered imitation in mujoco-warp's worlds, on warp's CPU device; run by `scripts/test_warp.sh`."""

import json
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.warp


def test_a_critic_is_attacked_in_worlds_of_two_tasks_where_libero_is_not_installed(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from vlac_gym.cli import main
    from vlac_gym.clone.policy import ClonePolicy, save_policy
    from vlac_gym.data.dataset import EpisodeDataset

    torch.manual_seed(0)
    save_policy(ClonePolicy(["libero_spatial:0", "libero_spatial:3"], image_size=16), tmp_path / "policy")
    command = (
        f"attack --critic scripted:1 --policy {tmp_path}/policy --scenes {os.environ['VLAC_GYM_TEST_SCENES']} "
        f"--num-envs 2 --out {tmp_path}/run --rounds 1 --episodes-per-round 3 --steps-per-round 1 --batch-size 2 "
        "--step-limit 10 --check-interval 8 --image-size 64 --keep-episodes --device cpu"
    )
    assert main(command.split()) == 0
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["metrics"]["critic/wrong_stops"] == 3.0
    kept = EpisodeDataset.open(tmp_path / "run" / "kept")
    found = [(entry.meta.task_id, entry.meta.init_state_id, entry.meta.seed) for entry in kept.entries]
    assert found == [(0, 0, 0), (0, 1, 2), (3, 0, 1)]
    episode = kept[0]
    assert episode.frame_steps.tolist() == [0, 8]
    assert episode.view("agentview")[0].shape == (64, 64, 3)
    assert episode.view("agentview")[0].std() > 20
    assert episode.meta.details["renderer"] == "mujoco-warp"
    assert episode.meta.details["has_verdict"] is True
