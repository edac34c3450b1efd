"""Real SimpleVLA-RL rollout, reward manager, accuracy filter and GRPO advantages, on real LIBERO.

SIMPLEVLA_PATH=/path/to/SimpleVLA-RL python -m pytest -m trainer tests/trainers/simplevla
"""

from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default"), pytest.mark.timeout(900)]


def prompts(**meta):
    import torch
    from verl import DataProto

    # Task 1 counts as done for the critic, task 0 never.
    return DataProto.from_dict(
        tensors={"task_id": torch.tensor([[1], [0]]), "trial_id": torch.tensor([[0], [2]])},
        non_tensors={"task_suite_name": np.array(["libero_spatial"] * 2, dtype=object)},
        meta_info=meta,
    )


def trainer_config():
    from omegaconf import OmegaConf

    return OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"action_token_len": 7}},
            "verifier": {"reward_coef": 1},
            "algorithm": {"adv_params": {"verifier_gamma": 1.0, "reward_model_gamma": 1.0}},
            "data": {
                "n_samples": 2,
                "filter_accuracy": True,
                "filter_truncated": False,
                "accuracy_lower_bound": 0.1,
                "accuracy_upper_bound": 0.9,
            },
        }
    )


def test_what_the_wrapper_paid_is_what_the_trainer_learns_from(
    rob_rollout, rollout, critic, tmp_path, monkeypatch
):
    import torch

    monkeypatch.chdir(tmp_path)
    player = rollout()
    batch = player.generate_sequences(prompts(n_samples=1))
    (value,) = critic.values()
    assert 0.0 < value < 1.0
    assert batch.batch["complete"].dtype == torch.float32
    assert batch.batch["complete"].tolist() == [1.0, np.float32(value)]
    assert batch.batch["finish_step"].tolist() == [6, 10]
    check_observations(rob_rollout, player)
    check_learning(batch, value)
    check_validation(player, critic, tmp_path)


def check_observations(rob_rollout, player):
    """The trainer's own helpers read what they expect from LIBERO."""
    for obs in player.seen:
        assert obs["agentview_image"].shape == obs["robot0_eye_in_hand_image"].shape == (64, 64, 3)
        turned = rob_rollout.quat2axisangle(obs["robot0_eef_quat"].copy())
        assert np.linalg.norm(turned) == pytest.approx(np.pi, abs=0.3)  # The gripper points down.
        assert obs["robot0_gripper_qpos"].shape == (2,)
    # 1 opens in the trainer's convention: the fingers are further apart at the end than closed.
    assert abs(player.seen[-1]["robot0_gripper_qpos"][0]) > 0.03
    assert "next to the ramekin" in player.task_descriptions[0]


def check_learning(batch, value):
    from verl import DataProto
    from verl.trainer.main_ppo import RobRewardManager
    from verl.trainer.ppo.ray_trainer import RayTrainer, compute_advantage

    config = trainer_config()
    manager = RobRewardManager(num_examine=0, config=config)
    scores, *_ = manager.verify(batch)
    assert scores == [1.0, pytest.approx(value)]
    rewards, _ = manager(batch)
    expected = np.zeros((2, 3 * 28), np.float32)
    expected[0, 6 * 7 - 1], expected[1, 10 * 7 - 1] = 1.0, value
    assert rewards["all"].numpy() == pytest.approx(expected)
    # A group of these two: mean (1 + v) / 2, deviation (1 - v) / sqrt(2).
    batch.batch["token_level_rewards"] = rewards["all"]
    batch.non_tensor_batch["uid"] = np.array(["group"] * 2, dtype=object)
    learned = compute_advantage(batch, gamma=1.0, lam=1.0, adv_estimator="grpo", config=config)
    advantages = learned.batch["advantages"]
    assert advantages[:, 0].tolist() == pytest.approx([2**-0.5, -(2**-0.5)], abs=1e-4)
    assert advantages[0, 6 * 7 :].abs().sum() == 0
    # What recipe.py refuses: its other estimator reads prompts that a robot's batch has not.
    with pytest.raises(KeyError, match="prompts"):
        compute_advantage(
            DataProto.from_dict({**rewards, **batch.batch}), 1.0, 1.0, adv_estimator="rloo", config=config
        )
    # The filter compares the group's mean reward with the bounds.
    kept = RayTrainer.filter(SimpleNamespace(config=config), batch.batch["acc"].unsqueeze(1), batch, 2)
    assert len(kept) == (2 if 0.1 <= (1 + value) / 2 <= 0.9 else 0)


def check_validation(player, critic, folder):
    """`trainer.val_only` plays without `n_samples`: the simulator's verdict, no critic, a video of each episode."""
    asked = len(critic.values())
    batch = player.generate_sequences(prompts())
    assert batch.batch["complete"].tolist() == [0.0, 0.0]
    assert batch.batch["finish_step"].tolist() == [10, 10]
    assert len(critic.values()) == asked
    assert len(list((folder / "rollouts/vlac-gym-test").glob("*.mp4"))) == 2


def test_failure_ends_the_rollout_at_once(rollout, critic, tmp_path, monkeypatch):
    critic.close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLAC_GYM_SETTINGS", str(tmp_path / "gone.json"))
    with pytest.raises(AssertionError):
        rollout().generate_sequences(prompts(n_samples=1))
