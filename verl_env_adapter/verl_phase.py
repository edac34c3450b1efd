"""What verl itself is doing, told to agent loops: `current_phase`, `install`, `AGENT_NAME`. Loads no verl.

Proven against verl 0.9.1, which keeps the flag from agent loops: `AgentLoopWorker._run_agent_loop` has it in
``trajectory["validate"]`` and calls ``agent_loop.run`` without it. `install` wraps that method, which the V1
trainer's worker inherits, and adds this package's agent loop to verl's table. Both happen when verl's module is
imported, so that a plain ``import verl`` stays cheap.
"""

__all__ = ["AGENT_NAME", "current_phase", "install"]

import functools
import importlib.util
import inspect
import logging
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from verl_env_adapter.settings import Phase

AGENT_NAME = "vlac_gym"
"""Name of the agent loop in a dataset's `agent_name` column and in `rollout.agent.default_agent_loop`."""

_TARGET = "verl_env_adapter.verl_agent_loop.VLACAgentLoop"
_MODULE = "verl.experimental.agent_loop.agent_loop"
_MARK = "_vlac_gym_phase"

_PHASE: ContextVar[Phase | None] = ContextVar("vlac_gym_verl_phase", default=None)

logger = logging.getLogger(__name__)


def current_phase() -> Phase | None:
    """The phase of the trajectory that this coroutine plays; None outside one, or without `install`."""
    return _PHASE.get()


def install() -> None:
    """Prepares verl's agent-loop module, now or when it is imported; safe to call twice."""
    module = sys.modules.get(_MODULE)
    if module is not None and hasattr(module, "AgentLoopWorker"):
        prepare(module)
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def prepare(module: Any) -> None:
    """Registers the agent loop and wraps `AgentLoopWorker._run_agent_loop`; warns of an unknown verl."""
    module._agent_loop_registry.setdefault(AGENT_NAME, {"_target_": _TARGET})
    worker = module.AgentLoopWorker
    run = getattr(worker, "_run_agent_loop", None)
    if getattr(run, _MARK, False):
        return
    if run is None or not {"trajectory", "agent_name"} <= inspect.signature(run).parameters.keys():
        logger.warning(
            "vlac-gym was proven against verl 0.9.1; this verl's AgentLoopWorker._run_agent_loop differs, so that "
            "the trainer's phase is unknown. The dataset's extra_info.mode alone decides between train and eval."
        )
        return
    worker._run_agent_loop = _with_phase(run)


def _with_phase(run: Any) -> Any:
    @functools.wraps(run)
    async def run_in_phase(self: Any, sampling_params: Any, trajectory: Any, **kwargs: Any) -> Any:
        token = _PHASE.set("validate" if trajectory["validate"] else "train")
        try:
            return await run(self, sampling_params, trajectory, **kwargs)
        finally:
            _PHASE.reset(token)

    setattr(run_in_phase, _MARK, True)
    return run_in_phase


class _AfterImport(MetaPathFinder):
    """Finds verl's module as usual, and prepares it once it has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _PreparingLoader(spec.loader)
        return spec


class _PreparingLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        prepare(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # get_source and the like, for tracebacks
