"""The clone policy behind RLinf's model interface: what the rollout records is what the update computes again."""

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
    return model_of_rlinf.CloneModel(clone.ClonePolicy(TASKS, chunk_size=8, image_size=32), **options)


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
    with pytest.raises(ConfigError, match="num_action_chunks 8 as in"):
        model_of_rlinf.build(Config(model_path=str(tmp_path), num_action_chunks=4))
