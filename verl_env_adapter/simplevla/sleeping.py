"""The plugin for a critic server on the policy's own cards, which sleeps while the actor trains.

Set ``actor_rollout_ref.model.external_lib=verl_env_adapter.simplevla.sleeping`` in the place of
`verl_env_adapter.simplevla.plugin`, whose work it does too. Proven against SimpleVLA-RL 7c51662 (2026-01-06).

It wraps `RobActorRolloutRefWorker.update_actor`, which brings the optimizer's state to the card before it trains. The
driver calls it when every worker has its episodes, and no question comes until it returns: validation asks none. Rank 0
puts the servers to sleep before anybody trains, and wakes them after everybody has given its memory back. Rollout and
old log-probabilities are computed with the critic awake, since one worker may still play while another is at those.
"""

__all__ = ["install_sleep"]

from functools import partial
from typing import Any

from verl_env_adapter.common.import_hooks import wrap_once
from verl_env_adapter.common.settings import AdapterSettings, settings_from_environment
from verl_env_adapter.common.sources import SIMPLEVLA
from verl_env_adapter.simplevla.plugin import install
from verl_env_adapter.simplevla.recipe import check_sleeping
from verl_env_adapter.simplevla.worker import check_settings
from vlac_gym.critic.registry import make_critic
from vlac_gym.errors import AdapterContractError
from vlac_gym.extras import needs

with needs("verl_env_adapter.simplevla.sleeping", get=SIMPLEVLA):
    from torch import distributed
    from verl.workers import fsdp_workers

_MARK = "_vlac_gym_sleep"


def install_sleep(module: Any = fsdp_workers) -> None:
    """Has the critic servers sleep during `RobActorRolloutRefWorker.update_actor`; safe to call twice.

    Raises:
        ConfigError: The settings are missing, do not fit this trainer, or name no critic server.
        AdapterContractError: This SimpleVLA-RL has not what is wrapped.
    """
    settings = check_sleeping(check_settings(settings_from_environment()))
    worker: Any = getattr(module, "RobActorRolloutRefWorker", None)
    if not hasattr(worker, "update_actor"):
        raise AdapterContractError(
            "Expected RobActorRolloutRefWorker.update_actor in verl.workers.fsdp_workers, as in SimpleVLA-RL 7c51662; "
            "this checkout differs."
        )
    wrap_once(worker, "update_actor", _MARK, partial(_with_sleeping_critic, settings=settings))


def _with_sleeping_critic(update: Any, settings: AdapterSettings) -> Any:
    def update_while_it_sleeps(self: Any, data: Any) -> Any:
        _switch(self.rank, settings, "sleep")
        output = update(self, data)
        distributed.barrier()
        _switch(self.rank, settings, "wake")
        return output

    return update_while_it_sleeps


def _switch(rank: int, settings: AdapterSettings, method: str) -> None:
    """Rank 0 tells the servers; all wait until it has."""
    if rank == 0:
        critic = make_critic(settings.critic.spec, **settings.critic_options())
        try:
            getattr(critic, method)()
        finally:
            critic.close()
    distributed.barrier()


install()
install_sleep()
