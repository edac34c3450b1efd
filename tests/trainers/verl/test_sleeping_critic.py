"""A critic server that shares the policy's card sleeps while verl's actor trains."""

from types import SimpleNamespace

import pytest

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.timeout(200),
    pytest.mark.filterwarnings("default"),  # verl's and Ray's own warnings are not ours to mend.
]

pytest.importorskip("verl")


@pytest.fixture
def make_trainer(compose, tmp_path):
    """verl's trainer with its hooks, without workers; `calls` says what happened in which order."""

    def make(spec: str, calls: list[str]):
        from omegaconf import OmegaConf
        from verl.trainer.ppo.v1 import get_trainer_cls

        entry = {
            "name": "vlac_gym",
            "_target_": "verl_env_adapter.verl.agent_loop.VLACAgentLoop",
            "settings": {"critic": {"spec": spec}},
        }
        OmegaConf.save(OmegaConf.create([entry]), tmp_path / "agent.yaml")
        trainer = object.__new__(get_trainer_cls("vlac_gym_sync"))
        trainer.config = compose(
            f"actor_rollout_ref.rollout.agent.agent_loop_config_path={tmp_path}/agent.yaml",
            "trainer.v1.trainer_mode=vlac_gym_sync",
        )
        trainer.checkpoint_manager = SimpleNamespace(
            sleep_replicas=lambda: calls.append("replicas sleep"),
            update_weights=lambda step: calls.append(f"weights of step {step}"),
        )
        trainer.curr_step_profile, trainer.timing_raw, trainer.global_steps = False, {}, 7
        return trainer

    return make


def test_critic_sleeps_between_the_last_episode_and_the_new_weights(make_trainer, critic):
    from vlac_gym.critic import make_critic

    calls: list[str] = []
    server = make_critic(critic.url)
    trainer = make_trainer(critic.url, calls)
    trainer.on_sample_end()
    assert server.server_info()["state"] == "asleep"
    trainer.on_step_end()
    assert server.server_info()["state"] == "awake"
    assert calls == ["replicas sleep", "weights of step 7"]
    server.close()


def test_critic_without_a_server_can_not_sleep(make_trainer):
    from vlac_gym.errors import ConfigError

    with pytest.raises(ConfigError, match="puts a critic server to sleep"):
        make_trainer("oracle", []).on_sample_end()
