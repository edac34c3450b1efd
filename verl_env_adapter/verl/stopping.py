"""Stops verl's V1 trainer when the critic's circuit breaker opens: `note_open`, `check`, `prepare`. Loads no verl.

Proven against verl 0.9.1, whose V1 workers log an episode's exception, leave it out of its group, and play others in
its place (``trainer.v1.sampler.sync_refill_failed_groups``) for as long as it takes. What does reach the trainer is an
exception of `AgentLoopWorkerTQ.generate_sequences`, on which it waits at every step and refill: here it raises what an
episode of that process has raised before.
"""

__all__ = ["check", "note_open", "prepare"]

import importlib
import logging
from typing import Any

from verl_env_adapter.common.import_hooks import wrap_once
from vlac_gym.errors import CircuitBreakerError

_MARK = "_vlac_gym_stops"

_open: list[CircuitBreakerError] = []  # the first of this process

logger = logging.getLogger(__name__)


def note_open(error: CircuitBreakerError) -> None:
    """An episode of this process has met an open circuit breaker."""
    if not _open:
        _open.append(error)


def check() -> None:
    """Raises `CircuitBreakerError` if an episode of this process has met an open circuit breaker."""
    if _open:
        raise _open[0]


def prepare(module: Any) -> None:
    """Has the worker of `verl.trainer.ppo.v1.agent_loop_tq` refuse new prompts then; warns of an unknown verl."""
    actor = getattr(module, "AgentLoopWorkerTQ", None)
    worker = getattr(getattr(actor, "__ray_metadata__", None), "modified_class", None)
    if not callable(getattr(worker, "generate_sequences", None)):
        logger.warning(
            "vlac-gym was proven against verl 0.9.1; this verl's AgentLoopWorkerTQ differs, so that a critic's open "
            "circuit breaker fails every episode but does not stop the V1 trainer."
        )
        return
    wrap_once(worker, "generate_sequences", _MARK, _refusing)


def _refusing(generate: Any) -> Any:
    # Ray sends the actor's class, and this function in it, by value: what it reads must be the worker's own module.
    name = __name__

    async def generate_unless_open(self: Any, *args: Any, **kwargs: Any) -> Any:
        importlib.import_module(name).check()
        return await generate(self, *args, **kwargs)

    return generate_unless_open
