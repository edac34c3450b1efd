"""SimpleVLA-RL's memory plan against numbers worked by hand."""

import dataclasses

import pytest

from verl_env_adapter.simplevla.memory import WEIGHTS, Weights, card_memory
from verl_env_adapter.simplevla.recipe import StepSizes

RECIPE = StepSizes(
    cards=8, episodes=512, simulators=8, passes=4, chunks=16, optimizer_steps=4, log_prob_chunks=256
)


def test_weights_gradients_and_adam_are_shared_out_over_the_cards():
    # 1e9 weights over 4 cards: 1 GB of float32 each, as much of gradients, twice as much of AdamW's moments.
    small = Weights(model=1_000_000_000, layer=100_000_000, root=200_000_000)
    plan = card_memory(dataclasses.replace(RECIPE, cards=4), weights=small)
    assert (plan["update"]["weights"], plan["update"]["gradients"], plan["update"]["adam"]) == (1.0, 1.0, 2.0)
    # In bfloat16 the root and two layers; whole gradients in bfloat16 and float32 of the root and a layer.
    assert plan["update"]["gathered"] == 0.8
    assert plan["update"]["gathered_gradients"] == 1.8
    # The root in float32, and two layers.
    assert plan["rollout"]["gathered"] == 1.2


def test_activations_are_tokens_and_pictures_of_one_pass():
    # 16 chunks of 256 + 40 + 57 tokens, 16 pictures: 5648 x 6.263556 MB + 16 x 550.595008 MB.
    assert card_memory(RECIPE)["update"]["activations"] == pytest.approx(44.2, abs=0.05)
    # A second picture: 16 x (256 x 6.263556 + 550.595008) MB more.
    assert card_memory(RECIPE, images=2)["update"]["activations"] == pytest.approx(78.7, abs=0.05)


def test_pictures_of_a_cards_episodes_stay_until_the_log_probabilities():
    # 64 trajectories of 64 chunks, each with 6 x 224 x 224 float32.
    plan = card_memory(RECIPE)
    assert plan["rollout"]["pictures"] == plan["old_log_probs"]["pictures"] == 4.9
    assert "pictures" not in plan["update"]


def test_phases_add_up_and_fit_a_card_while_the_critic_sleeps_in_the_update():
    plan = card_memory(RECIPE)
    for parts in plan.values():
        assert parts["sum"] == pytest.approx(sum(size for name, size in parts.items() if name != "sum"))
    assert plan["rollout"]["critic_awake"] == plan["old_log_probs"]["critic_awake"] == 15.4
    assert plan["update"]["critic_asleep"] == 0.6
    assert {phase: parts["sum"] for phase, parts in plan.items()} == {
        "rollout": 30.3,
        "old_log_probs": 46.5,
        "update": 68.8,
    }
    assert WEIGHTS.model == 7_541_237_184
