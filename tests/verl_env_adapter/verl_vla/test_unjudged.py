"""Transitions of an episode that lost its critic, on a stub of verl-vla's trainer module."""

from types import ModuleType, SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from verl_env_adapter.verl_vla.unjudged import leave_out  # noqa: E402
from vlac_gym.errors import AdapterContractError  # noqa: E402


@pytest.fixture
def trainer():
    """A module that sums the rewards of each chunk, as the trainer does."""
    module = ModuleType("sac_ray_trainer")

    def prepare_sac_actor_input(episode, *, trainer_config, global_steps):
        assert (trainer_config, global_steps) == ("config", 3)
        rewards = episode.batch["next.reward"].sum(dim=2).reshape(-1)
        return SimpleNamespace(batch={"info.rewards": rewards, "info.valids": torch.ones(len(rewards))})

    module.prepare_sac_actor_input = prepare_sac_actor_input
    return module


def prepared(module, rewards):
    episode = SimpleNamespace(batch={"next.reward": torch.tensor([rewards])})
    return module.prepare_sac_actor_input(episode, trainer_config="config", global_steps=3).batch


def test_no_transition_of_a_lost_episode_is_valid(trainer):
    leave_out(trainer)
    batch = prepared(trainer, [[0.0, 0.0], [float("nan"), 0.0]])
    assert batch["info.valids"].tolist() == [0.0, 0.0]
    assert batch["info.rewards"].tolist() == [0.0, 0.0]


def test_a_judged_episode_is_kept(trainer):
    leave_out(trainer)
    batch = prepared(trainer, [[0.0, 0.0], [0.5, 0.0]])
    assert batch["info.valids"].tolist() == [1.0, 1.0]
    assert batch["info.rewards"].tolist() == [0.0, 0.5]


def test_the_function_is_wrapped_once(trainer):
    leave_out(trainer)
    wrapped = trainer.prepare_sac_actor_input
    leave_out(trainer)
    assert trainer.prepare_sac_actor_input is wrapped


def test_another_verl_vla_is_refused():
    with pytest.raises(
        AdapterContractError, match=r"prepare_sac_actor_input in other as in verl-vla 8a18e3f"
    ):
        leave_out(ModuleType("other"))
