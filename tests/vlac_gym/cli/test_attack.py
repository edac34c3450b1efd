"""`vlac-gym attack` in LIBERO, and what `report-card --attack-runs` shows of it without a simulator."""

import json
from pathlib import Path

import numpy as np
import pytest
from recorded_bank import record_bank

torch = pytest.importorskip("torch")

from vlac_gym.cli import attack, main  # noqa: E402
from vlac_gym.clone.policy import ClonePolicy, save_policy  # noqa: E402
from vlac_gym.data.dataset import EpisodeDataset  # noqa: E402
from vlac_gym.errors import ConfigError  # noqa: E402
from vlac_gym.metrics.writer import MetricsWriter  # noqa: E402


@pytest.fixture(scope="module")
def attacked(tmp_path_factory) -> Path:
    """A folder with a policy, and an attack of one round of two episodes on a critic that is easily pleased."""
    root = tmp_path_factory.mktemp("attack")
    torch.manual_seed(0)
    save_policy(ClonePolicy(["libero_spatial:0", "libero_spatial:3"], image_size=16), root / "policy")
    assert main(["attack", "--out", str(root / "run"), *settings(root), "--rounds", "1"]) == 0
    return root


def settings(root: Path, patience: int = 2) -> list[str]:
    text = (
        f"--critic scripted:1 --policy {root}/policy --tasks libero_spatial:3 --init-states 4,7 --image-size 64 "
        f"--episodes-per-round 2 --steps-per-round 1 --batch-size 2 --step-limit 12 --check-interval 4 "
        f"--done-patience {patience} --keep-episodes --device cpu"
    )
    return text.split()


def test_wrong_stops_in_libero_are_kept_with_the_simulators_labels(attacked):
    kept = EpisodeDataset.open(attacked / "run" / "kept")
    assert [(e.meta.task_id, e.meta.init_state_id, e.meta.seed) for e in kept.entries] == [
        (3, 4, 0),
        (3, 7, 1),
    ]
    episode = kept[0]
    assert episode.frame_steps.tolist() == [0, 8]  # checks at steps 4 and 8, a chunk of 8 actions
    assert episode.view("agentview")[1].shape == (64, 64, 3)
    assert not episode.success.any()
    assert (episode.goal_progress < 1).all()
    assert episode.meta.details["renderer"].startswith("mujoco 3.3")
    assert "has_verdict" not in episode.meta.details
    assert (attacked / "run" / "kept" / "manifest.json").exists()


def test_an_attack_goes_on_with_the_same_settings_only(attacked, capsys):
    command = ["attack", "--out", str(attacked / "run"), "--resume", "--rounds", "1"]
    assert main([*command, *settings(attacked)]) == 0
    assert capsys.readouterr().out.startswith(
        "round 1: 2 wrong stops of 2 episodes, failures paid 1.00\n2 episodes recorded, 0 of them successes"
    )
    assert main([*command, *settings(attacked, patience=1)]) == 2
    assert "with other settings: rule was" in capsys.readouterr().err


def test_another_critics_calibration_is_refused(tmp_path, capsys):
    save_policy(ClonePolicy(["libero_spatial:3"], image_size=16), tmp_path / "policy")
    command = (
        f"attack --critic scripted:1 --policy {tmp_path}/policy --calibration nano --device cpu "
        f"--out {tmp_path}/run"
    )
    assert main(command.split()) == 2
    assert "Expected the calibration of scripted:1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_policys_task_that_libero_does_not_have_is_told(tmp_path, capsys):
    save_policy(ClonePolicy(["libero_spatial:10"], image_size=16), tmp_path / "policy")
    command = f"attack --critic scripted:1 --policy {tmp_path}/policy --device cpu --out {tmp_path}/run"
    assert main(command.split()) == 2
    assert "Expected task_id in 0..9 for libero_spatial, got 10" in capsys.readouterr().err


@pytest.mark.parametrize(("device", "warps"), [("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")])
def test_worlds_are_on_the_policys_device(tmp_path, monkeypatch, device, warps):
    save_policy(ClonePolicy(["libero_spatial:3"], image_size=16), tmp_path / "policy")
    (tmp_path / "scenes" / "task").mkdir(parents=True)
    (tmp_path / "scenes" / "task" / "task.json").write_text('{"suite": "libero_spatial", "task_id": 3}')
    np.savez(tmp_path / "scenes" / "task" / "starts.npz", qpos=np.zeros((2, 1)))

    def scene_envs(*args, device, **options):
        raise ConfigError(f"worlds on {device}")

    monkeypatch.setattr("vlac_gym.training.device.pick_device", torch.device)  # as where there are GPUs
    monkeypatch.setattr(attack, "scene_envs", scene_envs)
    with pytest.raises(ConfigError, match=f"worlds on {warps}$"):
        attack.run(
            attack.Args(
                critic="scripted:1",
                policy=tmp_path / "policy",
                out=tmp_path / "run",
                scenes=tmp_path / "scenes",
                device=device,
            )
        )


def test_an_attack_on_another_critic_is_told_before_a_card_is_made(tmp_path, capsys):
    record_bank(tmp_path / "bank")
    with MetricsWriter(tmp_path / "run") as writer:
        writer.write(2, {"critic/wrong_stops": 2.0})
    (tmp_path / "run" / "settings.json").write_text('{"critic_fingerprint": "another"}')
    command = (
        f"report-card --critic scripted:1 --episodes {tmp_path}/bank --attack-runs {tmp_path}/run "
        f"--out {tmp_path}/card"
    )
    assert main(command.split()) == 2
    assert "/run against another (another)" in capsys.readouterr().err
    assert not (tmp_path / "card").exists()


def test_a_card_shows_an_attack_of_elsewhere_without_a_simulator(attacked, tmp_path, capsys):
    pytest.importorskip("scipy")
    record_bank(tmp_path / "bank")
    command = (
        f"report-card --critic scripted:1 --episodes {tmp_path}/bank --attack-runs {attacked}/run "
        f"--out {tmp_path}/card --probe-episodes 0 --cost-repeats 0"
    )
    assert main(command.split()) == 0
    card = json.loads((tmp_path / "card" / "card.json").read_text())
    section = card["sections"]["under_optimisation"]
    assert list(section) == ["filtered imitation run"]
    assert section["filtered imitation run"]["after_2_episodes"]["wrong_stops"]["value"] == 1.0
    assert card["attack"]["not_searched"][0] == "scripted cheats"
    assert [w["text"] for w in card["attack"]["worst"]] == [
        "ended as done at step 8, in round 1 of imitation"
    ]
    page = (tmp_path / "card" / "index.html").read_text()
    assert "Not searched: scripted cheats, best of K, filtered imitation of this card&#39;s own." in page
    assert "Paid for nothing" in page
