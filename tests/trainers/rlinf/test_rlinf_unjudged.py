"""rlinf 0.3.0 does not train on an episode that lost its critic: its actor's own batch, advantages and losses.

Run by `scripts/test_rlinf.sh`, in an environment that has rlinf.
"""

import inspect
from types import SimpleNamespace

import pytest

from verl_env_adapter.rlinf import unjudged

pytestmark = [pytest.mark.trainer, pytest.mark.timeout(420), pytest.mark.filterwarnings("default")]

pytest.importorskip("rlinf")
torch = pytest.importorskip("torch")

NAN = float("nan")
CHUNKS, STEPS = 2, 4
WHOLE = [0, 0, 0, 0, 0, 0, 0, 1.0]
LATE = [0, 0, 0, 0, 0, 0, 0, 0.5]
LOST = [0, 0, NAN, 0, 0, 0, 0, 0]


def batch_of(episodes, ends):
    """What RLinf's env workers send: (chunks, envs, steps), and a row more of `dones`."""
    shape = (len(episodes), CHUNKS, STEPS)
    done = torch.arange(CHUNKS * STEPS) >= torch.tensor(ends)[:, None]
    done = done.reshape(shape).transpose(0, 1)
    return {
        "rewards": torch.tensor(episodes, dtype=torch.float32).reshape(shape).transpose(0, 1).contiguous(),
        "dones": torch.cat([torch.zeros_like(done[:1]), done]),
        "prev_values": torch.full((CHUNKS + 1, len(episodes), STEPS), 0.25),
        "prev_logprobs": torch.zeros((CHUNKS, len(episodes), STEPS)),
    }


@pytest.fixture
def actor(monkeypatch):
    """RLinf's actor without a model, up to its advantages: in the class that Ray makes of it before we are called."""
    import ray
    from omegaconf import OmegaConf
    from rlinf.workers.actor import fsdp_actor_worker

    methods = ray.remote(fsdp_actor_worker.EmbodiedFSDPActor).__ray_metadata__.modified_class
    unjudged.install()
    monkeypatch.setattr(fsdp_actor_worker, "compute_rollout_metrics", lambda batch: {})  # of all ranks

    def advantages(batch, adv_type):
        train = {
            "rollout_epoch": 1,
            "auto_reset": False,
            "ignore_terminations": False,
            "max_episode_steps": 8,
        }
        algorithm = {"group_size": 3, "reward_type": "action_level", "adv_type": adv_type, "gamma": 0.9}
        cfg = {"env": {"train": train}, "algorithm": algorithm, "runner": {"task_type": "embodied"}}
        worker = SimpleNamespace(cfg=OmegaConf.create(cfg))
        worker.rollout_batch = methods._process_received_rollout_batch(worker, batch)
        inspect.unwrap(methods.compute_advantages_and_returns)(worker)
        return worker.rollout_batch

    return advantages


def trained(batch, loss_type):
    """The gradients of RLinf's loss by log-probabilities and values, (chunks, envs, steps)."""
    from rlinf.algorithms.registry import policy_loss

    flat = lambda tensor: tensor.reshape(-1, STEPS)  # noqa: E731
    logprobs = torch.zeros((CHUNKS * 3, STEPS), requires_grad=True)
    values = torch.full((CHUNKS * 3, STEPS), 0.3, requires_grad=True)
    loss, _ = policy_loss(
        task_type="embodied",
        loss_type=loss_type,
        logprob_type="action_level",
        reward_type="action_level",
        single_action_dim=1,
        logprobs=logprobs,
        old_logprobs=torch.zeros_like(logprobs),
        values=values,
        prev_values=flat(batch["prev_values"][:-1]),
        advantages=flat(batch["advantages"]),
        returns=None if batch.get("returns") is None else flat(batch["returns"]),
        loss_mask=flat(batch["loss_mask"]),
        loss_mask_sum=flat(batch["loss_mask_sum"]),
        max_episode_steps=8,
        clip_ratio_low=0.2,
        clip_ratio_high=0.2,
        value_clip=0.2,
        huber_delta=10.0,
    )
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [logprobs.grad, torch.zeros_like(values) if values.grad is None else values.grad]
    return [gradient.reshape(CHUNKS, 3, STEPS) for gradient in gradients]


def test_in_a_group_no_step_of_it_trains_and_the_others_are_compared_with_each_other(actor):
    batch = actor(batch_of([WHOLE, LOST, LATE], ends=[7, 2, 7]), "grpo")
    assert not batch["loss_mask"][:, 1].any()
    assert batch["loss_mask"][:, [0, 2]].all()
    by_logprob, _ = trained(batch, "actor")
    assert not by_logprob[:, 1].any()
    # Around (1.0 + 0.5) / 2, not around (1.0 + 0.0 + 0.5) / 3; RLinf's deviation is that of all three.
    assert batch["advantages"][0, :, 0].tolist() == pytest.approx([1.0, 0.0, -1.0], abs=1e-4)
    assert by_logprob[:, 0].flatten().tolist() == pytest.approx([-1 / 24] * 8, rel=1e-4)


def test_with_a_critic_of_values_no_step_of_it_trains(actor):
    batch = actor(batch_of([WHOLE, LOST, LATE], ends=[7, 2, 7]), "gae")
    for gradient in trained(batch, "actor_critic"):
        assert torch.isfinite(gradient).all()
        assert not gradient[:, 1].any()
        assert gradient[:, [0, 2]].all()


def test_without_the_mask_it_would(actor):
    batch = actor(batch_of([WHOLE, [0.0] * 8, LATE], ends=[7, 2, 7]), "gae")
    for gradient in trained(batch, "actor_critic"):
        assert gradient[0, 1, :3].all()


def test_a_batch_without_any_judgement_changes_nothing(actor):
    batch = actor(batch_of([LOST] * 3, ends=[2, 2, 2]), "gae")
    for gradient in trained(batch, "actor_critic"):
        assert not gradient.any()


def test_a_real_env_worker_sends_it_to_the_mask(play, make_config, record, seed_with_tasks):
    # Stage 0 plays task 1, stage 1 task 0, "between the plate and the ramekin", whose critic is gone.
    cfg = make_config("own_critics:losing?words=between_the", train={"seed": seed_with_tasks(1, 0)})
    cfg.env.train.vlac_gym.critic.on_error = "truncate"
    cfg.algorithm.group_size = 1
    cfg.runner.val_check_interval = -1
    outcome = play(cfg)
    batch, metrics = outcome["batch"], outcome["metrics"]
    assert metrics["critic_failed"].tolist() == [0.0, 1.0]
    assert batch["rewards"][:, 0].reshape(-1).tolist() == [0] * 7 + [0.5]
    steps = torch.isnan(batch["rewards"][:, 1].reshape(-1))
    assert steps.sum() == 1
    [end] = steps.nonzero().flatten().tolist()
    assert batch["dones"][1:, 1].reshape(-1).tolist() == [False] * end + [True] * (8 - end)

    unjudged.leave_out(batch["rewards"], batch["loss_mask"], 1)
    assert batch["loss_mask"][:, 0].all()
    assert not batch["loss_mask"][:, 1].any()
    assert batch["loss_mask_sum"][0, :, 0].tolist() == [8, end + 1]
    assert torch.isfinite(batch["rewards"]).all()
