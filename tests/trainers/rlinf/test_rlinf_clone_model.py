"""The clone policy behind RLinf's model interface: what the rollout records is what the update computes again."""

import json
import math
from types import SimpleNamespace

import pytest

from vlac_gym.errors import ConfigError

pytestmark = [pytest.mark.trainer, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]

pytest.importorskip("rlinf")
torch = pytest.importorskip("torch")
clone = pytest.importorskip("vlac_gym.clone.policy")
model_of_rlinf = pytest.importorskip("verl_env_adapter.rlinf.clone_model")

TASKS = ["libero_spatial:0", "libero_spatial:3"]
TEXT = "pick up the black bowl on the cookie box and place it on the plate"  # task 3


class Config(SimpleNamespace):
    """As much of OmegaConf's as `build` uses."""

    def get(self, name, default=None):
        return getattr(self, name, default)


def make(**options):
    torch.manual_seed(0)
    policy = clone.ClonePolicy(TASKS, chunk_size=8, image_size=32)
    return model_of_rlinf.CloneModel(policy, model_of_rlinf.task_texts(TASKS), **options)


def flat_policy(*actions):
    """A policy whose means are these numbers, one per action of the chunk, whatever it sees."""
    policy = clone.ClonePolicy(TASKS, chunk_size=len(actions), image_size=32)
    policy.mean.weight.data.zero_()
    policy.mean.bias.data = torch.tensor(actions).repeat_interleave(7)
    return policy


def seen(count=3, side=64):
    torch.manual_seed(1)
    pictures = torch.randint(0, 256, (2, count, side, side, 3), dtype=torch.uint8)
    names = ("main_images", "wrist_images")
    return {
        **dict(zip(names, pictures, strict=True)),
        "states": torch.randn(count, 8),
        "task_descriptions": [TEXT] * count,
    }


def test_update_computes_the_rollouts_log_probabilities_and_values_again():
    model = make()
    actions, kept = model.predict_action_batch(seen(), do_sample=True, temperature=1.0)
    assert actions.shape == (3, 8, 7)
    assert actions.abs().max() <= 1.0
    assert kept["prev_values"].shape == (3, 8)
    again = model(forward_inputs=kept["forward_inputs"], use_cache=False)
    torch.testing.assert_close(again["logprobs"], kept["prev_logprobs"])
    torch.testing.assert_close(again["values"], kept["prev_values"])
    # Entropy of a Gaussian: log(std) + (1 + log(2 pi)) / 2.
    assert again["entropy"].flatten()[0].item() == pytest.approx(-2.5 + 0.5 + 0.5 * math.log(2 * math.pi))


def test_evaluation_acts_by_the_means():
    model = make(log_std=0.0)
    actions, _ = model.predict_action_batch(seen(), do_sample=False)
    again, _ = model.predict_action_batch(seen(), do_sample=False)
    torch.testing.assert_close(actions, again)
    sampled, _ = model.predict_action_batch(seen(), do_sample=True)
    assert (sampled - actions).abs().mean() > 0.3


def test_policy_sees_upright_pictures_of_its_size_and_its_task():
    env_obs = seen()
    _, kept = make().predict_action_batch(env_obs)
    inputs = kept["forward_inputs"]
    assert inputs["task"].tolist() == [[0.0, 1.0]] * 3
    assert inputs["main_images"].shape == (3, 32, 32, 3)
    # RLinf's pictures are mirrored: their right upper corner is the left upper one.
    corner = env_obs["main_images"][0, :2, -2:].float().mean(dim=(0, 1)).round()
    assert inputs["main_images"][0, 0, 0].tolist() == corner.tolist()


def test_learning_values_leaves_the_actions_alone():
    model = make()
    _, kept = model.predict_action_batch(seen())
    model.default_forward(kept["forward_inputs"])["values"].sum().backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved == {name for name, _ in model.named_parameters() if "value_head" in name}


def offset_model(**options):
    """A chunk of two actions of means 0.2 and 0.4, whose mean, 0.3, is drawn with standard deviation 1."""
    options = {"log_std": 0.0} | options
    return model_of_rlinf.CloneModel(flat_policy(0.2, 0.4), ["task 0", TEXT], learn="offset", **options)


def test_offset_moves_all_actions_of_a_chunk_by_one_draw():
    model = offset_model(log_std=-3.0)
    actions, kept = model.predict_action_batch(seen(), do_sample=True)
    drawn = kept["forward_inputs"]["action"]
    assert drawn.shape == (3, 7)
    torch.testing.assert_close(actions[:, 0], drawn - 0.1)
    torch.testing.assert_close(actions[:, 1], drawn + 0.1)
    assert drawn.std() == pytest.approx(math.exp(-3.0), rel=0.5)
    assert kept["prev_logprobs"].shape == (3, 1, 7)
    assert kept["prev_values"].shape == (3, 1)
    still, kept = model.predict_action_batch(seen(), do_sample=False)
    torch.testing.assert_close(still[0, :, 0], torch.tensor([0.2, 0.4]))


def test_an_offset_that_has_learned_from_a_clock_is_refused():
    policy = flat_policy(0.2, 0.4)
    policy.add_offset().weight.data[0, 512 + 3 + 1] = 0.1  # of action 0, task 3: t
    with pytest.raises(ConfigError, match="Expected a policy that does not read the time"):
        model_of_rlinf.CloneModel(policy, ["task 0", TEXT])


def test_offset_has_one_log_probability_per_chunk_and_number():
    model = offset_model()
    _, kept = model.predict_action_batch(seen())
    inputs = kept["forward_inputs"] | {"action": torch.full((3, 7), 0.8)}
    # A Gaussian's at half a deviation: -0.5 * 0.5^2 - log(2 pi) / 2.
    before = model(forward_inputs=inputs)["logprobs"]
    torch.testing.assert_close(before, torch.full((3, 1, 7), -0.125 - 0.5 * math.log(2 * math.pi)))
    model.policy.offset.bias.data.fill_(0.5)  # both actions, and so their mean, move onto the draw
    after = model(forward_inputs=inputs)["logprobs"]
    torch.testing.assert_close(after, torch.full((3, 1, 7), -0.5 * math.log(2 * math.pi)))


def test_rlinf_has_one_ratio_and_one_value_per_chunk_of_an_offset():
    from rlinf.algorithms.registry import policy_loss

    _, metrics = policy_loss(
        task_type="embodied",
        loss_type="actor_critic",
        logprob_type="chunk_level",
        reward_type="chunk_level",
        single_action_dim=7,
        logprobs=torch.full((2, 1, 7), -0.9),
        old_logprobs=torch.tensor([-1.0, -0.9])[:, None, None].expand(2, 1, 7),
        values=torch.tensor([[0.5], [0.0]]),
        prev_values=torch.tensor([[0.5], [0.0]]),
        returns=torch.tensor([[1.0], [1.0]]),
        advantages=torch.tensor([[-1.0], [1.0]]),
        loss_mask=torch.tensor([[True], [True]]),
        loss_mask_sum=torch.tensor([[16], [16]]),
        max_episode_steps=16,
        clip_ratio_low=0.2,
        clip_ratio_high=0.28,
        value_clip=0.2,
        huber_delta=10.0,
    )
    ratio = math.exp(7 * 0.1)  # over the draw's seven numbers
    assert metrics["actor/ratio"] == pytest.approx((ratio + 1) / 2)
    assert metrics["actor/policy_loss"] == pytest.approx((ratio - 1) / 2)
    assert metrics["critic/value_loss"] == pytest.approx((0.5 * 0.5**2 + 0.5 * 1.0**2) / 2)


def test_offset_leaves_the_cloned_weights_alone():
    model = offset_model()
    _, kept = model.predict_action_batch(seen())
    result = model.default_forward(kept["forward_inputs"])
    (result["logprobs"].sum() + result["values"].sum()).backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved == {name for name, _ in model.named_parameters() if "offset" in name or "value_head" in name}


def test_offset_learned_without_the_time_acts_alike_with_it():
    model = offset_model()
    _, kept = model.predict_action_batch(seen())
    inputs = kept["forward_inputs"]
    optimizer = torch.optim.Adam(model.policy.offset.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model.default_forward(inputs)["logprobs"].sum().backward()
        optimizer.step()
    images = {"agentview": inputs["main_images"], "wrist": inputs["wrist_images"]}
    acts = lambda steps: model.policy(images, inputs["states"], inputs["task"], steps)[0]  # noqa: E731
    assert (acts(None) - torch.tensor([0.2, 0.4])[:, None]).abs().mean() > 0.1  # it has learned
    torch.testing.assert_close(acts(torch.tensor([0, 80, 152])), acts(None))


def test_texts_of_exported_tasks_need_no_libero(tmp_path):
    (tmp_path / "libero_spatial_3").mkdir()
    task = {"format": 1, "suite": "libero_spatial", "task_id": 3, "task": TEXT}
    (tmp_path / "libero_spatial_3" / "task.json").write_text(json.dumps(task))
    assert model_of_rlinf.scene_texts(TASKS, str(tmp_path)) == ["libero_spatial:0", TEXT]


def test_grpo_has_no_value_head():
    model = make(add_value_head=False)
    assert not hasattr(model, "value_head")
    assert model.predict_action_batch(seen())[1]["prev_values"].abs().max() == 0.0


def test_what_the_policy_does_not_know_is_refused():
    with pytest.raises(ConfigError, match="task of the policy 'fold a towel'"):
        make().predict_action_batch(seen() | {"task_descriptions": ["fold a towel"] * 3})
    with pytest.raises(ConfigError, match="the env shows no wrist_images"):
        make().predict_action_batch({k: v for k, v in seen().items() if k != "wrist_images"})


def test_a_cloned_policy_is_the_start(tmp_path):
    policy = clone.ClonePolicy(TASKS, chunk_size=8, image_size=32)
    clone.save_policy(policy, tmp_path)
    model = model_of_rlinf.build(
        Config(model_path=str(tmp_path), num_action_chunks=8, add_value_head=True, log_std=-1.0)
    )
    torch.testing.assert_close(model.policy.mean.weight, policy.mean.weight)
    assert model.policy.log_std.tolist() == [-1.0] * 7
    options = {"num_action_chunks": 8, "add_value_head": True, "learn": "offset"}
    model = model_of_rlinf.build(Config(model_path=str(tmp_path), **options))
    assert model.policy.offset is not None
    assert model.value_head[-1].out_features == 1
    with pytest.raises(ConfigError, match="Did you mean 'offset'"):
        model_of_rlinf.build(Config(model_path=str(tmp_path), **options | {"learn": "ofset"}))
    with pytest.raises(ConfigError, match="num_action_chunks 8 as in"):
        model_of_rlinf.build(Config(model_path=str(tmp_path), num_action_chunks=4))


def test_an_untrained_policy_is_the_same_in_each_process():
    options = {
        "tasks": TASKS,
        "cameras": ["agentview"],
        "image_size": 32,
        "num_action_chunks": 8,
        "learn": "offset",
    }
    torch.manual_seed(3)
    rollout = model_of_rlinf.build(Config(**options))
    torch.manual_seed(4)
    actor = model_of_rlinf.build(Config(**options))
    frozen = {name for name, value in actor.named_parameters() if not value.requires_grad}
    assert "policy.mean.weight" in frozen
    for name in frozen:
        torch.testing.assert_close(rollout.get_parameter(name), actor.get_parameter(name), rtol=0, atol=0)
