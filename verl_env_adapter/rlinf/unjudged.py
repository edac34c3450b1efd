"""Keeps RLinf from training on episodes that nobody judged: `mark`, `split`, `masked`, `install`. Needs torch.

An episode that is cut because its critic failed, or lost with its simulator, has no reward, and RLinf's trajectories no
place to say so. `verl_env_adapter.rlinf.env` writes NaN at the step that ended it. Where RLinf makes its `loss_mask`
from the ends of episodes, that NaN becomes a mask over the whole episode, as RLinf's own `filter_rewards` masks groups:
`loss_mask_sum` stays, since it divides. Those places (rlinf 0.3.0):

- ``workers/actor/fsdp_actor_worker.py:1159``, the actor of PPO and GRPO, of their asynchronous runner, too;
- ``utils/utils.py:749``, called by the env worker where ``use_training_pipeline`` is on.

GRPO's baseline reads no mask (``algorithms/advantages.py:107``), so that a 0 in its place would be taken for the
critic's word on the rest of the group. What stands there is what leaves the group's mean as the others make it.
"""

__all__ = ["install", "mark", "masked", "split"]

import logging
from collections.abc import Callable, Sequence
from typing import Any

from verl_env_adapter.common.import_hooks import after_import, wrap_once
from verl_env_adapter.common.sources import RLINF
from vlac_gym.errors import AdapterContractError
from vlac_gym.extras import needs

with needs("The RLinf adapter", get=RLINF):
    import torch
    from torch import Tensor

_ACTORS = "rlinf.workers.actor.fsdp_actor_worker"
_ENV_WORKERS = "rlinf.workers.env.env_worker"
_MARK = "_vlac_gym_masks"

Batch = dict[str, Any]

logger = logging.getLogger(__name__)


def mark(rewards: Tensor, executed_steps: Sequence[int], unjudged: Sequence[bool]) -> None:
    """Writes NaN, in place, at the step that ended an episode without a judgement.

    Args:
        rewards: float (N, T), of a chunk.
        executed_steps: Of each env in this chunk.
        unjudged: Which episodes ended so in this chunk.
    """
    for i, (executed, is_unjudged) in enumerate(zip(executed_steps, unjudged, strict=True)):
        if is_unjudged:
            rewards[i, max(executed - 1, 0)] = torch.nan


def split(batch: Batch, num_epochs: int, group_size: int) -> tuple[Batch, Tensor]:
    """The batch with numbers alone, and which of its episodes nobody judged.

    Args:
        batch: RLinf's; `rewards` float (epochs * chunks, envs, steps), NaN somewhere in an episode without judgement.
        num_epochs: ``rollout_epoch``.
        group_size: Envs in a row that start alike. In their place in a group stands the mean of its other episodes'
            returns; 0 where there are none.

    Returns:
        The batch with other `rewards`, and bool (epochs * envs,).
    """
    rewards = batch["rewards"]
    episodes = rewards.reshape(num_epochs, -1, *rewards.shape[1:])
    unknown = episodes.isnan()
    is_unjudged = unknown.any(dim=3).any(dim=1)
    if not is_unjudged.any():
        return batch, is_unjudged.reshape(-1)
    paid = torch.where(unknown, 0.0, episodes)
    returns = paid.sum(dim=(1, 3))
    size = group_size if returns.shape[1] % group_size == 0 else 1
    weights = (~is_unjudged).to(returns.dtype).reshape(num_epochs, -1, size)
    sums = (returns.reshape(weights.shape) * weights).sum(dim=2, keepdim=True)
    means = (
        (sums / weights.sum(dim=2, keepdim=True).clamp(min=1.0)).expand(weights.shape).reshape(returns.shape)
    )
    filled = torch.where(unknown, (means - returns)[:, None, :, None], paid)
    logger.warning("%d of %d episodes have no judgement: masked", int(is_unjudged.sum()), is_unjudged.numel())
    return {**batch, "rewards": filled.reshape(rewards.shape)}, is_unjudged.reshape(-1)


def masked(batch: Batch, is_unjudged: Tensor) -> Batch:
    """The batch, as RLinf made it from `split`'s, with a `loss_mask` that leaves those episodes out.

    Args:
        batch: With `loss_mask` bool (chunks, episodes, steps or 1).
        is_unjudged: bool (episodes,).
    """
    if not is_unjudged.any():
        return batch
    return {**batch, "loss_mask": batch["loss_mask"] & ~is_unjudged.reshape(1, -1, 1)}


def install() -> None:
    """Wraps both places, now or when RLinf's modules are imported; safe to call twice.

    Raises:
        AdapterContractError: This RLinf has no such function there.
    """
    after_import(_ACTORS, _prepare_actor)
    after_import(_ENV_WORKERS, _prepare_env_worker)


def _prepare_actor(module: Any) -> None:
    actor = getattr(module, "EmbodiedFSDPActor", None)
    _wrap(actor, "_process_received_rollout_batch", f"{_ACTORS}.EmbodiedFSDPActor", _masking_actor)


def _prepare_env_worker(module: Any) -> None:
    _wrap(module, "preprocess_embodied_batch", _ENV_WORKERS, _masking_batch)


def _wrap(owner: Any, name: str, where: str, wrapper: Callable[[Any], Any]) -> None:
    if not callable(getattr(owner, name, None)):
        raise AdapterContractError(
            f"Expected {where}.{name} as in rlinf 0.3.0, got none: episodes that lost their critic could not be "
            "masked. Install rlinf==0.3.0."
        )
    wrap_once(owner, name, _MARK, wrapper)


def _masking_actor(process: Callable[[Any, Batch], Batch]) -> Callable[[Any, Batch], Batch]:
    def process_judged(self: Any, rollout_batch: Batch) -> Batch:
        epochs, group_size = self.cfg.env.train.rollout_epoch, self.cfg.algorithm.get("group_size", 1)
        numbers, is_unjudged = split(rollout_batch, int(epochs), int(group_size))
        return masked(process(self, numbers), is_unjudged)

    return process_judged


def _masking_batch(preprocess: Callable[..., Batch]) -> Callable[..., Batch]:
    def preprocess_judged(batch: Batch, *, rollout_epoch: int, group_size: int, **options: Any) -> Batch:
        numbers, is_unjudged = split(batch, rollout_epoch, group_size)
        made = preprocess(numbers, rollout_epoch=rollout_epoch, group_size=group_size, **options)
        return masked(made, is_unjudged)

    return preprocess_judged
