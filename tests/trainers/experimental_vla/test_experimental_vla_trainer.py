"""Real experimental/vla env worker, loop, masks, rewards and REINFORCE++ advantages, on real LIBERO.

VERL_EXPERIMENTAL_VLA_PATH=/path/to/verl python -m pytest -m trainer tests/trainers/experimental_vla
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from example_commands import printed_config

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default"), pytest.mark.timeout(900)]


def prompts(**meta):
    from verl import DataProto

    return DataProto.from_dict(
        non_tensors={
            "state_ids": np.array([50, 2]),
            "task_ids": np.array([1, 0]),
            "data_source": np.array(["libero"] * 2, dtype=object),
        },
        meta_info=meta,
    )


def test_what_the_wrapper_paid_is_what_the_trainer_learns_from(trainer, critic, policy):
    player = trainer()
    batch = player.async_rollout_manager.generate_sequences(prompts(), player._reset_envs(prompts()))
    (value,) = critic.values()
    assert 0.0 < value < 1.0
    paid = np.zeros((2, 3, 4), np.float32)
    paid[0, 1, 1], paid[1, 2, 3] = 1.0, value
    assert batch.batch["env_rewards"].tolist() == paid.tolist()
    done = [[[False] * 4, [False, True, True, True], [True] * 4], [[False] * 4] * 3]
    assert batch.batch["complete"].tolist() == done
    check_learning(player, batch, value)
    check_validation(player, critic, policy)


def check_learning(player, batch, value):
    """As the trainer's `fit` goes on from the rollout: mask, reward, flattening, token scores, advantages."""
    import torch
    from verl.experimental.vla.rob_ray_trainer import compute_response_mask, flatten_trajectories
    from verl.trainer.ppo.ray_trainer import compute_advantage
    from verl.trainer.ppo.reward import compute_reward

    mask = compute_response_mask(batch)
    # Lane 0 acts until its done at step 6, lane 1 to its last step; 7 tokens an action.
    assert mask.sum(dim=(1, 2)).tolist() == [6 * 7, 12 * 7]
    batch.batch["response_mask"] = mask
    rewards, _ = compute_reward(batch, player.reward_fn)
    assert rewards.tolist() == [[1.0] * 3, [np.float32(value)] * 3]
    batch.batch["reward_tensor"] = rewards
    flat = flatten_trajectories(batch)
    masks = flat.batch["response_mask"]
    last = masks.shape[1] - 1 - torch.argmax(masks.flip(dims=[1]).long(), dim=1)
    scores = torch.zeros(masks.shape)
    scores[torch.arange(len(masks)), last] = flat.batch["reward_tensor"] * masks.any(dim=1)
    flat.batch["token_level_rewards"] = scores
    learned = compute_advantage(
        flat, adv_estimator="reinforce_plus_plus", gamma=1.0, config=player.config.algorithm
    )
    returns = learned.batch["returns"][:, 0]
    expected = [1.0, 1.0, 0.0, value, value, value]
    assert returns.tolist() == pytest.approx(expected)
    advantages = learned.batch["advantages"][:, 0]
    assert advantages[0] > 0 > advantages[3]


def check_validation(player, critic, policy):
    """The trainer's own `_validate`, over one batch: the simulator's verdict, and no question to the critic."""
    asked = len(critic.values())
    metrics = player._validate()
    assert [value for name, value in metrics.items() if name.startswith("val-core")] == [0.0]
    assert policy.meta[-1]["validate"] is True
    assert len(critic.values()) == asked
    assert player._vlac_gym_phase == "train"


def test_plugin_is_what_makes_the_difference(run_without_plugin):
    printed = run_without_plugin(
        "import sys, verl\n"
        "from verl.experimental.vla.env_loop import EnvLoop\n"
        "print(EnvLoop._collate_trajectories.__module__, 'verl_env_adapter.experimental_vla.plugin' in sys.modules)"
    )
    assert printed.split() == ["verl.experimental.vla.env_loop", "False"]


@pytest.mark.parametrize(("script", "val_only"), [("run.sh", "false"), ("eval.sh", "true")])
def test_examples_commands_compose_the_trainers_configuration(script, val_only):
    root = Path(__file__).parents[3]
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(root),
        "VERL": os.environ["VERL_EXPERIMENTAL_VLA_PATH"],
        "POLICY": "/models/openvla-oft",
        "DATA": "/data",
        "VLAC_CRITIC": "http://critic:1",
    }
    printed = printed_config(root / "examples/train_experimental_vla" / script, environment)
    for line in ("spec: http://critic:1", f"val_only: {val_only}", "adv_estimator: reinforce_plus_plus"):
        assert line in printed
