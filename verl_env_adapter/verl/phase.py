"""What verl itself is doing, told to agent loops: `current_phase`, `install`, `AGENT_NAME`. Loads no verl.

Proven against verl 0.9.1, which keeps the flag from agent loops: `AgentLoopWorker._run_agent_loop` has it in
``trajectory["validate"]`` and calls ``agent_loop.run`` without it. `install` wraps that method, which the V1
trainer's worker inherits, adds this package's agent loop and trainer to verl's tables, and lets an open circuit breaker
stop the V1 trainer (`verl_env_adapter.verl.stopping`). This happens when verl's modules are imported, so that a plain
``import verl`` stays cheap.
"""

__all__ = ["AGENT_NAME", "current_phase", "install"]

import importlib
import inspect
import logging
from contextvars import ContextVar
from typing import Any

from verl_env_adapter.common.import_hooks import after_import, wrap_once
from verl_env_adapter.common.settings import Phase
from verl_env_adapter.verl.stopping import note_open
from verl_env_adapter.verl.stopping import prepare as prepare_v1
from vlac_gym.errors import CircuitBreakerError

AGENT_NAME = "vlac_gym"
"""Name of the agent loop in a dataset's `agent_name` column and in `rollout.agent.default_agent_loop`."""

_TARGET = "verl_env_adapter.verl.agent_loop.VLACAgentLoop"
_LOOPS = "verl.experimental.agent_loop.agent_loop"
_V1_LOOPS = "verl.trainer.ppo.v1.agent_loop_tq"
_TRAINER = "verl.trainer.ppo.v1.trainer_sync"
_MARK = "_vlac_gym_phase"

_PHASE: ContextVar[Phase | None] = ContextVar("vlac_gym_verl_phase", default=None)

logger = logging.getLogger(__name__)


def current_phase() -> Phase | None:
    """The phase of the trajectory that this coroutine plays; None outside one, or without `install`."""
    return _PHASE.get()


def install() -> None:
    """Prepares verl's modules, now or when they are imported; safe to call twice."""
    after_import(_LOOPS, prepare)
    after_import(_TRAINER, _add_trainer)
    after_import(_V1_LOOPS, prepare_v1)


def prepare(module: Any) -> None:
    """Registers the agent loop and wraps `AgentLoopWorker._run_agent_loop`; warns of an unknown verl."""
    module._agent_loop_registry.setdefault(AGENT_NAME, {"_target_": _TARGET})
    worker = module.AgentLoopWorker
    run = getattr(worker, "_run_agent_loop", None)
    if run is None or not {"trajectory", "agent_name"} <= inspect.signature(run).parameters.keys():
        logger.warning(
            "vlac-gym was proven against verl 0.9.1; this verl's AgentLoopWorker._run_agent_loop differs, so that "
            "the trainer's phase is unknown. The dataset's extra_info.mode alone decides between train and eval."
        )
        return
    wrap_once(worker, "_run_agent_loop", _MARK, _with_phase)


def _add_trainer(module: Any) -> None:
    """Adds the trainer whose critic sleeps to verl's table."""
    importlib.import_module("verl_env_adapter.verl.trainer")


def _with_phase(run: Any) -> Any:
    async def run_in_phase(self: Any, sampling_params: Any, trajectory: Any, **kwargs: Any) -> Any:
        token = _PHASE.set("validate" if trajectory["validate"] else "train")
        try:
            return await run(self, sampling_params, trajectory, **kwargs)
        except CircuitBreakerError as e:
            note_open(e)
            raise
        finally:
            _PHASE.reset(token)

    return run_in_phase
