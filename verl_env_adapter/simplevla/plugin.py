"""SimpleVLA-RL with a critic, without a fork.

Set ``actor_rollout_ref.model.external_lib=verl_env_adapter.simplevla.plugin``. The trainer imports this in every GPU
worker before it builds its rollout, and importing is the installation. The settings come from the file that
`VLAC_GYM_SETTINGS` names. Proven against SimpleVLA-RL 7c51662 (2026-01-06). It puts

- `worker.env_worker` in the place of `rob_rollout.env_worker` (looked up at every fork), and
- a float `complete` in the rollout's output, where ``bool(0.37)`` would make every truncated episode a full success.

`RobRewardManager` takes `complete` as the score and puts it on the token of `finish_step`; nothing of it is changed.
``trainer.val_only=True`` evaluates by the simulator. ``data.filter_accuracy`` compares the mean *reward* of a group
with its bounds: with a critic, a group of failures whose values are above the lower bound is kept, which a filter on
success would drop.
"""

__all__ = ["install"]

from typing import Any

from verl_env_adapter.common.import_hooks import wrap_once
from verl_env_adapter.common.settings import settings_from_environment
from verl_env_adapter.common.sources import SIMPLEVLA
from verl_env_adapter.simplevla.worker import check_settings, env_worker
from vlac_gym.errors import AdapterContractError
from vlac_gym.extras import needs

with needs("verl_env_adapter.simplevla.plugin", get=SIMPLEVLA):
    from verl.workers.rollout import rob_rollout

_MARK = "_vlac_gym_rewards"


def install(module: Any = rob_rollout) -> None:
    """Puts env worker and rewards in their places; safe to call twice.

    Raises:
        ConfigError: The settings are missing or do not fit this trainer.
        AdapterContractError: This SimpleVLA-RL has not what is replaced.
    """
    check_settings(settings_from_environment())
    rollout: Any = getattr(module, "RobHFRollout", None)
    if not hasattr(module, "env_worker") or not hasattr(rollout, "_prepare_output_batch"):
        raise AdapterContractError(
            "Expected env_worker and RobHFRollout._prepare_output_batch in verl.workers.rollout.rob_rollout, as in "
            "SimpleVLA-RL 7c51662; this checkout differs."
        )
    module.env_worker = env_worker
    wrap_once(rollout, "_prepare_output_batch", _MARK, _with_rewards)


def _with_rewards(prepare: Any) -> Any:
    def prepare_with_rewards(self: Any, vla_history: Any, task_records: Any, batch_size: int) -> Any:
        with needs("The SimpleVLA-RL adapter", get=SIMPLEVLA):
            import torch

        output = prepare(self, vla_history, task_records, batch_size)
        paid = [float(record["complete"]) for record in task_records]
        device = output.batch["responses"].device
        output.batch["complete"] = torch.tensor(paid, dtype=torch.float32, device=device)
        return output

    return prepare_with_rewards


install()
