"""One whole step of SimpleVLA-RL on a CPU: its own loop, rollout, reward, filter, advantage and AdamW, on real LIBERO.

The model is a tiny OpenVLA-OFT of random weights in the checkout's own classes, with tensorflow's pictures and timm's
towers. What is not the trainer's: `cuda_on_cpu`, one worker without Ray, and a stand-in for the names of flash_attn.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_commands import given_overrides

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default"), pytest.mark.timeout(900)]

EXAMPLE = Path(__file__).parents[3] / "examples/train_simplevla/run_openvla_oft_rl.sh"
SUITE = "libero_spatial"
LEARNING_RATE, WEIGHT_DECAY, TEMPERATURE = 1e-3, 1e-2, 1.6
REWARD_COEFFICIENT = 5.0
"""`verifier.reward_coef` of ppo_trainer.yaml, which the recipe leaves as it is."""
ALL_DONE, NONE_DONE, ONE_DONE = 1, 0, 2
"""Tasks for the critic of these tests: it ends both, none, and the first of the episodes."""
TOKENS = 2 * 8 * 7
"""Of an episode of 2 chunks."""
SMALL = {
    "data": {
        "task_suite_name": SUITE,
        "num_trials_per_task": 1,
        "n_samples": 2,
        "train_batch_size": 1,
        "val_batch_size": 10,
        "accuracy_lower_bound": 0.5,
    },
    "actor_rollout_ref": {
        "model": {"external_lib": "verl_env_adapter.simplevla.sleeping"},
        "actor": {
            "ppo_mini_batch_size": 2,
            "ppo_micro_batch_size": 1,
            "traj_mini_batch_size": 1,
            "optim": {"lr": LEARNING_RATE},
            "fsdp_config": {
                "mixed_precision": {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
            },
        },
        "rollout": {"task_suite_name": SUITE, "unnorm_key": SUITE, "log_prob_micro_batch_size": 2},
    },
    "trainer": {"n_gpus_per_node": 1, "total_epochs": 1, "save_freq": -1},
}
"""What differs from the example's command: sizes, float32, and a rate at which steps are seen."""


@dataclass
class Recording:
    """What went into the update, and what came of it."""

    batches: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)
    weights_after: list[Any] = field(default_factory=list)
    gradients: list[list[Any]] = field(default_factory=list)
    critic_states: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


@pytest.fixture
def config(tmp_path, checkout):
    """The example's command, composed with the checkout's own config, and `SMALL`."""
    from omegaconf import OmegaConf

    from verl_env_adapter.simplevla.check import compose

    environment = {
        **os.environ,
        "SIMPLEVLA": checkout,
        "SFT_MODEL_PATH": str(tmp_path / "model"),
        "TMPDIR": str(tmp_path),
        "CKPT_PATH": str(tmp_path / "checkpoints"),
    }
    composed = compose(Path(checkout), given_overrides(EXAMPLE, environment, tmp_path))
    return OmegaConf.merge(OmegaConf.create(composed), OmegaConf.create(SMALL))


@pytest.fixture
def on_cpu():
    """One process group, and CUDA's calls on the CPU."""
    from cuda_on_cpu import cuda_on_cpu
    from torch import distributed

    distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    with cuda_on_cpu():
        yield
    distributed.destroy_process_group()


@pytest.fixture
def worker(config, checkout, flash_attn, write_settings, on_cpu, tmp_path, monkeypatch):
    """The trainer's `RobActorRolloutRefWorker` after its own `init_model`."""
    import torch
    import transformers
    from tiny_openvla import write_tiny_openvla

    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    for name, value in {"WORLD_SIZE": 1, "RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}.items():
        monkeypatch.setenv(name, str(value))
    write_settings(cameras=["agentview"], chunk=8, done_interval=6)
    write_tiny_openvla(tmp_path / "model", Path(checkout))
    from verl.workers.fsdp_workers import RobActorRolloutRefWorker

    made = RobActorRolloutRefWorker(config.actor_rollout_ref, "actor_rollout")
    made.init_model()
    made.rollout.max_steps[SUITE] = 16
    torch.manual_seed(0)
    return made


def weights_of(worker):
    return [parameter.detach().clone() for parameter in worker.actor_module_fsdp.parameters()]


def gradients_of(worker):
    """None for the last block of each tower, which the model computes past."""
    gradients = [parameter.grad for parameter in worker.actor_module_fsdp.parameters()]
    return [None if gradient is None else gradient.clone() for gradient in gradients]


def play_one_step(config, worker, critic_url, monkeypatch):
    """Runs the trainer's loop over three prompts, one at a time, of which one group is learned from."""
    import verl.utils.tracking
    from one_worker_group import OneWorkerGroup
    from torch.utils.data import DataLoader, Subset
    from verl.trainer.main_ppo import RobRewardManager
    from verl.trainer.ppo.ray_trainer import RayTrainer, Role
    from verl.utils.dataset.rob_dataset import BufferedDataLoader, collate_fn

    seen = Recording()

    class Tracking:
        def __init__(self, **settings):
            pass

        def log(self, data, step):
            seen.metrics.update(data)

    monkeypatch.setattr(verl.utils.tracking, "Tracking", Tracking)
    record_steps(worker, seen, critic_url)
    trainer = RayTrainer(
        config,
        worker.tokenizer,
        {Role.ActorRollout: None},
        None,
        reward_fn=RobRewardManager(num_examine=0, config=config),
        val_reward_fn=None,
    )
    starts = Subset(trainer.train_dataset, [ALL_DONE, NONE_DONE, ONE_DONE])
    trainer.train_dataloader = BufferedDataLoader(DataLoader(starts, batch_size=1, collate_fn=collate_fn))
    trainer.actor_rollout_wg = OneWorkerGroup(worker, lambda batch: note_batch(seen, worker, batch))
    trainer.fit()
    seen.weights_after = weights_of(worker)
    return seen


def note_batch(seen, worker, batch):
    seen.batches.append(batch)
    seen.weights.append(weights_of(worker))


def record_steps(worker, seen, critic_url):
    """Notes the gradients of every optimizer step, and whether the critic slept then."""
    from vlac_gym.critic import make_critic

    step = worker.actor_optimizer.step

    def recorded(*args, **kwargs):
        seen.gradients.append(gradients_of(worker))
        with make_critic(critic_url) as critic:
            seen.critic_states.append(critic.server_info()["state"])
        return step(*args, **kwargs)

    worker.actor_optimizer.step = recorded


def test_one_step_learns_from_what_the_critic_paid(config, worker, critic, monkeypatch):
    from verl.workers.rollout import rob_rollout

    from verl_env_adapter.simplevla.worker import env_worker
    from vlac_gym.critic import make_critic

    assert rob_rollout.env_worker is env_worker
    seen = play_one_step(config, worker, critic.url, monkeypatch)
    failures, value = critic.values()[:2], critic.values()[2]
    check_filter(seen, failures, value)
    (batch,) = seen.batches
    check_batch(batch, value)
    check_metrics(seen)
    check_first_update(seen)
    check_gradient(worker, seen)
    check_optimizer_step(worker, batch, seen)
    with make_critic(critic.url) as awake:
        assert awake.server_info()["state"] == "awake"
    check_no_advantage(worker, batch, seen)
    assert seen.critic_states == ["asleep"] * 3


def check_filter(seen, failures, value):
    """Groups of mean 1, of two failures, and of one success: only the last is between 0.5 and 0.9."""
    assert 0.0 < np.mean(failures) < 0.5
    assert 0.0 < value < 0.8
    means = [1.0, np.mean(failures), (1.0 + value) / 2]
    assert seen.metrics["train_verify_score/all"] == pytest.approx(np.mean(means))
    (batch,) = seen.batches
    assert batch.batch["task_id"].tolist() == [[ONE_DONE]] * 2
    assert len(set(batch.non_tensor_batch["uid"])) == 1


def check_batch(batch, value):
    """One row ends by the critic's done at step 6, the other is paid its value at the limit of 10."""
    rows = {int(steps): row for row, steps in enumerate(batch.batch["finish_step"])}
    assert sorted(rows) == [6, 10]
    assert batch.batch["responses"].shape == (2, 2, 8 * 7)
    assert batch.batch["pixel_values"].shape == (2, 2, 6, 32, 32)
    assert ((batch.batch["responses"] >= 31744) & (batch.batch["responses"] < 32000)).all()
    expected = np.zeros((2, TOKENS), np.float32)
    expected[rows[6], 6 * 7 - 1] = REWARD_COEFFICIENT
    expected[rows[10], 10 * 7 - 1] = REWARD_COEFFICIENT * value
    assert batch.batch["token_level_rewards"].numpy() == pytest.approx(expected)
    assert batch.batch["acc"][[rows[6], rows[10]]].tolist() == [1.0, pytest.approx(value)]
    # Of the scores 5 and 5 v: each is half their difference from the mean, which is 1 / sqrt(2) of their deviation.
    advantages = np.zeros((2, TOKENS), np.float32)
    advantages[rows[6], : 6 * 7], advantages[rows[10], : 10 * 7] = 2**-0.5, -(2**-0.5)
    assert batch.batch["advantages"].numpy() == pytest.approx(advantages, abs=1e-5)
    # Log-probabilities of 256 choices: none is 0 where an action was played, all are behind the end.
    assert ((batch.batch["old_log_probs"] != 0).numpy() == (advantages != 0)).all()


def check_metrics(seen):
    """The ratio is 1 in the only pass: a loss of minus the advantage for each row, which cancel out."""
    assert seen.metrics["actor/pg_loss"] == pytest.approx(0.0, abs=1e-5)
    assert seen.metrics["actor/ppo_kl"] == pytest.approx(0.0, abs=1e-5)
    assert seen.metrics["actor/pg_clipfrac"] == 0.0
    assert seen.metrics["actor/grad_norm"] > 0.0
    assert seen.metrics["actor/lr(1e-4)"] == pytest.approx(LEARNING_RATE * 1e4)


def check_first_update(seen):
    """One optimizer step, at a rate of 0: the trainer's warm-up divides its step 0 by 1 (torch_functional.py:472)."""
    import torch

    assert len(seen.gradients) == 1
    assert all(map(torch.equal, seen.weights_after, seen.weights[0]))


def check_gradient(worker, seen):
    """The step's gradient is that of GRPO's objective, written out over the played actions only."""
    import torch

    module, (batch,) = worker.actor_module_fsdp, seen.batches
    module.train()
    for row in range(2):
        rows = {name: batch.batch[name][row] for name in ("input_ids", "responses", "pixel_values")}
        prompts = torch.stack([ids[ids != 32000] for ids in rows["input_ids"]])
        logits = module(
            input_ids=prompts, attention_mask=torch.ones_like(prompts), pixel_values=rows["pixel_values"]
        )
        bins = torch.log_softmax(logits[..., 31744:32000] / TEMPERATURE, -1)
        played = bins.gather(-1, (rows["responses"] - 31744).unsqueeze(-1)).flatten()
        count = int(batch.batch["finish_step"][row]) * 7
        advantage = float(batch.batch["advantages"][row, 0])
        (-advantage * torch.exp(played - played.detach())[:count].sum() / count / 2).backward()
    expected = gradients_of(worker)
    norm = torch.linalg.vector_norm(torch.cat([g.flatten().double() for g in expected if g is not None]))
    assert seen.metrics["actor/grad_norm"] == pytest.approx(float(norm), rel=2e-3)  # Theirs sums in float32.
    shrunk = min(1.0, 1.0 / float(norm))  # `grad_clip=1`
    (taken,) = seen.gradients
    assert [gradient is None for gradient in expected] == [gradient is None for gradient in taken]
    for ours, theirs in zip(expected, taken, strict=True):
        assert ours is None or torch.allclose(shrunk * ours, theirs, rtol=1e-3, atol=1e-6)
    worker.actor_optimizer.zero_grad()


def check_optimizer_step(worker, batch, seen):
    """From the second update on the weights move by AdamW's step, which for a gradient that stays is the rate times its
    sign, and by its decay."""
    import torch

    before = weights_of(worker)
    worker.update_actor(batch)
    first, gradients = seen.gradients
    moved = 0
    for new, old, gradient, earlier in zip(weights_of(worker), before, gradients, first, strict=True):
        if gradient is None:
            assert torch.equal(new, old)
            continue
        assert torch.equal(gradient, earlier)
        step = LEARNING_RATE * gradient / (gradient.abs() + 1e-8)
        assert torch.allclose(new, old * (1 - LEARNING_RATE * WEIGHT_DECAY) - step, atol=LEARNING_RATE * 1e-2)
        moved += int((new != old).sum())
    assert moved > 1_000_000


def check_no_advantage(worker, batch, seen):
    """Without an advantage the gradient is 0: a fresh AdamW decays the weights, and moves them no further."""
    import torch

    worker.actor_optimizer.state.clear()
    before = weights_of(worker)
    batch.batch["advantages"] = torch.zeros_like(batch.batch["advantages"])
    output = worker.update_actor(batch)
    assert output.meta_info["metrics"]["actor/grad_norm"] == [0.0]
    for new, old, gradient in zip(weights_of(worker), before, seen.gradients[-1], strict=True):
        assert gradient is None or not gradient.any()
        decay = 0.0 if gradient is None else LEARNING_RATE * WEIGHT_DECAY
        assert torch.equal(new, old * (1 - decay))


def test_sleep_needs_a_server(checkout, flash_attn, write_settings, tmp_path, monkeypatch):
    from vlac_gym.errors import ConfigError

    write_settings()
    from verl_env_adapter.simplevla.sleeping import install_sleep

    settings = tmp_path / "local.json"
    settings.write_text('{"critic": {"spec": "oracle"}}')
    monkeypatch.setenv("VLAC_GYM_SETTINGS", str(settings))
    with pytest.raises(ConfigError, match=r"puts a critic server to sleep, but critic\.spec is 'oracle'"):
        install_sleep()
