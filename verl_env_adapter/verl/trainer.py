"""verl's synchronous V1 trainer, with a critic that sleeps while the actor trains: `SleepingCriticTrainer`.

For a critic server on the policy's own card: ``trainer.v1.trainer_mode=vlac_gym_sync``. Proven against verl 0.9.1,
whose hooks `on_sample_end` and `on_step_end` are where its own inference replicas sleep and wake.
"""

__all__ = ["TRAINER_MODE", "SleepingCriticTrainer", "find_settings"]

from typing import Any

from verl_env_adapter.common.settings import (
    SETTINGS_VARIABLE,
    AdapterSettings,
    parse_settings,
    settings_from_environment,
)
from vlac_gym.critic.registry import make_critic
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs

with needs("The verl adapter", "verl"):
    from omegaconf import OmegaConf
    from verl.trainer.ppo.v1.trainer_base import register_trainer
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

TRAINER_MODE = "vlac_gym_sync"
"""Value of `trainer.v1.trainer_mode`."""

_LOOP = "verl_env_adapter.verl.agent_loop.VLACAgentLoop"


@register_trainer(TRAINER_MODE)
class SleepingCriticTrainer(PPOTrainerSync):  # type: ignore[misc]
    """verl's `sync` trainer; the critic server frees its card between the last episode and the new weights.

    Validation, which comes after that, asks no critic.

    Raises:
        ConfigError: The settings name no critic server.
        CriticError: The server does not sleep, or can't wake because its memory is not free.
    """

    _remote_critic: Any = None

    def on_sample_end(self) -> None:
        """All episodes of the step are there: replicas and critic sleep."""
        super().on_sample_end()
        self._critic_server().sleep()

    def on_step_end(self) -> None:
        """The actor is trained: replicas and critic wake."""
        super().on_step_end()
        self._critic_server().wake()

    def _critic_server(self) -> Any:
        if self._remote_critic is None:
            settings = find_settings(self.config)
            settings.critic.require_server(f"trainer_mode {TRAINER_MODE}", instead="trainer_mode sync")
            self._remote_critic = make_critic(settings.critic.spec, **settings.critic_options())
        return self._remote_critic


def find_settings(config: Any) -> AdapterSettings:
    """The settings that the agent loop reads, found from the trainer's side.

    Raises:
        ConfigError: There are none.
    """
    path = config.actor_rollout_ref.rollout.agent.get("agent_loop_config_path")
    entries = OmegaConf.load(path) if path else []
    blocks = [entry.settings for entry in entries if entry.get("_target_") == _LOOP and "settings" in entry]
    if not blocks and config.get("vlac_gym") is not None:
        blocks = [config.vlac_gym]
    if blocks:
        return parse_settings(blocks[0])
    settings = settings_from_environment()
    if settings is None:
        raise ConfigError(
            "Found no vlac-gym settings: neither in the agent-loop config file, nor as vlac_gym in the trainer's "
            f"config, nor by {SETTINGS_VARIABLE}."
        )
    return settings
