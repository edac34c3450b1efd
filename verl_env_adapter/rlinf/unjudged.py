"""Keeps RLinf from training on episodes that nobody judged: `mark`, `leave_out`, `install`. Needs torch.

An episode that is cut because its critic failed, or lost with its simulator, has no reward, and RLinf's trajectories no
place to say so. `verl_env_adapter.rlinf.env` writes NaN at the step that ended it. `calculate_adv_and_returns`, by
which RLinf's actors of PPO and GRPO, and its env worker where ``use_training_pipeline`` is on, turn rewards into
advantages, gets rewards and `loss_mask` as the batch has them: around it, that NaN becomes a mask over the whole
episode. As where RLinf's own `filter_rewards` masks groups, `loss_mask_sum` stays, since it divides.

GRPO's baseline reads no mask (``algorithms/advantages.py:109`` of rlinf 0.3.0), so that a 0 in its place would be taken
for the critic's word on the rest of the group. What stands there is what leaves the group's mean as the others make it.

The function is replaced by name in the modules that call it, not in a class: Ray copies the methods of an actor's class
before RLinf calls `register` in the actor's process.
"""

__all__ = ["install", "leave_out", "mark"]

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

_CALLERS = (
    "rlinf.workers.env.env_worker",
    "rlinf.workers.actor.fsdp_actor_worker",
    "rlinf.workers.actor.async_ppo_fsdp_worker",
)
"""Modules that import the function by its name."""

_NAME = "calculate_adv_and_returns"
_MARK = "_vlac_gym_masks"

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


def leave_out(rewards: Tensor, loss_mask: Tensor, group_size: int) -> None:
    """Takes episodes that nobody judged out of the loss, and their NaN out of the rewards, both in place.

    Args:
        rewards: float (chunks, episodes, steps), NaN somewhere in an episode without judgement.
        loss_mask: bool (chunks, episodes, steps or 1).
        group_size: Episodes in a row that began alike. In the place of one without judgement stands the mean of the
            others' returns; 0 where there are none.
    """
    unknown = rewards.isnan()
    is_unjudged = unknown.any(dim=2).any(dim=0)
    if not is_unjudged.any():
        return
    paid = torch.where(unknown, 0.0, rewards)
    returns = paid.sum(dim=(0, 2))
    size = group_size if len(returns) % group_size == 0 else 1
    weights = (~is_unjudged).to(returns.dtype).reshape(-1, size)
    sums = (returns.reshape(-1, size) * weights).sum(dim=1, keepdim=True)
    means = (sums / weights.sum(dim=1, keepdim=True).clamp(min=1.0)).expand(-1, size).reshape(-1)
    rewards.copy_(torch.where(unknown, (means - returns)[None, :, None], paid))
    loss_mask.logical_and_(~is_unjudged[None, :, None])
    logger.warning("%d of %d episodes have no judgement: masked", int(is_unjudged.sum()), len(is_unjudged))


def install() -> None:
    """Wraps the function in the modules that call it, now or when they are imported; safe to call twice.

    Raises:
        AdapterContractError: This RLinf has no such function there.
    """
    for name in _CALLERS:
        after_import(name, _prepare)


def _prepare(module: Any) -> None:
    if not callable(getattr(module, _NAME, None)):
        raise AdapterContractError(
            f"Expected {module.__name__}.{_NAME} as in rlinf 0.3.0, got none: episodes that lost their critic could "
            "not be masked. Install rlinf==0.3.0."
        )
    wrap_once(module, _NAME, _MARK, _leaving_out)


def _leaving_out(calculate: Callable[..., Any]) -> Callable[..., Any]:
    def calculate_judged(**given: Any) -> Any:
        if given.get("task_type") == "embodied" and given.get("loss_mask") is not None:
            leave_out(given["rewards"], given["loss_mask"], int(given.get("group_size") or 1))
        return calculate(**given)

    return calculate_judged
