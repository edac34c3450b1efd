"""Keeps verl-vla from training on episodes that lost their critic: `leave_out`. Loads no trainer.

Such an episode is cut without a reward, and what an env says to verl-vla has no place for that: the simulator writes
NaN at the step that ended it. On the controller, `prepare_sac_actor_input` (``trainer/sac/sac_ray_trainer.py:42`` at
8a18e3f) makes transitions of a whole episode, with the trainer's own `info.valids`: 0 keeps a transition out of every
replay pool (``utils/replay_pool.py:67``). Recorders are the env's own matter: see `env.VLACLiberoEnv`.
"""

__all__ = ["leave_out"]

import logging
from collections.abc import Callable
from typing import Any

from verl_env_adapter.common.import_hooks import wrap_once
from vlac_gym.errors import AdapterContractError

_MARK = "_vlac_gym_leaves_out"
_NAME = "prepare_sac_actor_input"

logger = logging.getLogger(__name__)


def leave_out(module: Any) -> None:
    """Wraps the function in `verl_vla.trainer.sac.sac_ray_trainer`; safe to call twice.

    Raises:
        AdapterContractError: It is not there.
    """
    if not callable(getattr(module, _NAME, None)):
        raise AdapterContractError(
            f"Expected {_NAME} in {module.__name__} as in verl-vla 8a18e3f, got none: episodes that lost their critic "
            "could not be left out. Use that commit."
        )
    wrap_once(module, _NAME, _MARK, _leaving_out)


def _leaving_out(prepare: Callable[..., Any]) -> Callable[..., Any]:
    def prepare_judged(episode: Any, **options: Any) -> Any:
        rewards = episode.batch["next.reward"]
        if not rewards.isnan().any():
            return prepare(episode, **options)
        episode.batch["next.reward"] = rewards.nan_to_num(nan=0.0)
        transitions = prepare(episode, **options)
        valids = transitions.batch["info.valids"]
        logger.warning("an episode lost its critic: none of its %d transitions is kept", len(valids))
        transitions.batch["info.valids"] = valids * 0.0
        return transitions

    return prepare_judged
