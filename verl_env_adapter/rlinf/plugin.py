"""RLinf 0.3: the env of its env workers. No fork: an extension module.

Proven against `rlinf` 0.3.0 from PyPI (2026-08), whose own env worker and batch code the tests drive.

    export RLINF_EXT_MODULE=verl_env_adapter.rlinf.plugin        # before Ray starts, on every node

    env:
      train:
        env_type: libero                 # RLinf's action conversion; the env itself comes from the block
        task_suite_name: vlac_gym        # RLinf's own env refuses this name: nothing trains without us
        vlac_gym: {env: {suite: libero_spatial, chunk: 8}, critic: {spec: "http://critic:8400"}}
      eval:
        vlac_gym: ${env.train.vlac_gym}
        is_eval: True                    # the simulator's signals

RLinf calls `register` in every worker process, not on the driver, and only warns where it fails;
`verl_env_adapter.rlinf.launch` starts its entry scripts with the module loaded on the driver, too. A module of your own
may stand in for this one if its `register` calls ours. Four things make a failure loud: the suite's name;
`verl_env_adapter.rlinf.options.check_config` on the driver (``python -m verl_env_adapter.rlinf.check``);
`get_env_cls`, which refuses the name without a block; and the metric ``env/critic_mode``, 1 where the critic pays.

What is translated (paths in the wheel):

- A chunk goes on after an episode's end (``envs/libero/libero_env.py:677``). Here the end is latched until the
  reset: nothing is simulated or asked, rewards are 0, flags stay.
- ``reset`` has no seed and multiplies one by the number of envs (``:645``). Here a group's envs share start and seed,
  k-th episode by k-th episode, also when they end at different times.
- Rewards are ``reward_coef`` times the difference of terminations (``:873``). Here they are what the rule paid, at
  the one step that earned it; RLinf's coefficients are refused.
- With ``auto_reset`` or ``ignore_terminations`` ends are reported in the last column (``:714``), and with the latter
  only the step limit is an end: kept. The terminal observation is the ended episode's (``final_observation``).
- A truncation gets ``gamma * V`` on top (``workers/env/env_worker.py:676``): ``truncate_as_terminal: true`` makes a
  paid truncation a termination; with ``auto_reset`` it must be set.
- Only the last of a chunk's observations is rendered; the others are None, which RLinf's `RecordVideo` skips.
- An episode that is cut because its critic failed, or lost with its simulator, has no reward, and no place in a
  trajectory says so: it travels as NaN and is masked where RLinf computes advantages
  (`verl_env_adapter.rlinf.unjudged`). With ``auto_reset`` there is no such mask, and RLinf bootstraps its truncation.
- `success_once` in training would be the terminations, whoever caused them. Training reports `critic_done` and
  `sim_success`; evaluation reports `success_once`, the simulator's.
- A reward model's score is added to each step of a chunk and never ends an episode (``env_worker.py:640``), and
  forbids more than one pipeline stage (``config.py:928``): leave `use_reward_model` false. Here the critic is asked
  inside the env's step: reward and end in the step that was judged, stages as before.
"""

__all__ = ["get_env_class", "register", "register_named"]

import importlib
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from verl_env_adapter.common.import_hooks import wrap_once
from verl_env_adapter.common.sources import RLINF
from verl_env_adapter.rlinf.options import BLOCK, EXTENSION_ADVICE, EXTENSION_VARIABLE, POLICY, SUITE
from vlac_gym.errors import AdapterContractError, ConfigError
from vlac_gym.extras import needs

CPU_VARIABLE = "VLAC_GYM_RLINF_CPU"
"""Environment variable: ``1`` gives RLinf's workers the CPU as their device where there is no accelerator."""

_MARK = "_vlac_gym"
_MODULES = ("rlinf.envs", "rlinf.workers.env.env_worker")
"""Where `get_env_cls` is looked up; the second imported the name before it called us."""

logger = logging.getLogger(__name__)


def register() -> None:
    """Puts our env before RLinf's; called by RLinf in each worker process, safe to call twice.

    Raises:
        AdapterContractError: This RLinf has no `get_env_cls`, or makes no masks, where 0.3.0 does.
    """
    for name in _MODULES:
        with needs("The RLinf adapter", get=RLINF):
            module = importlib.import_module(name)
        if not callable(getattr(module, "get_env_cls", None)):
            raise AdapterContractError(
                f"Expected {name}.get_env_cls as in rlinf 0.3.0, got none. Install rlinf==0.3.0."
            )
        wrap_once(module, "get_env_cls", _MARK, get_env_class)
    _register_policy()
    importlib.import_module("verl_env_adapter.rlinf.unjudged").install()
    if os.environ.get(CPU_VARIABLE) == "1":
        importlib.import_module("verl_env_adapter.rlinf.cpu").install()
    logger.info("vlac-gym's env is known to RLinf in this process")


def _register_policy() -> None:
    """Makes ``model_type: vlac_clone`` known; its module is imported where it is built."""
    with needs("The RLinf adapter", get=RLINF):
        models = importlib.import_module("rlinf.models")

    def build(cfg: Any, torch_dtype: Any) -> Any:
        return importlib.import_module("verl_env_adapter.rlinf.clone_model").build(cfg, torch_dtype)

    models.register_model(POLICY, build, force=True)


def register_named(environ: Mapping[str, str] = os.environ) -> None:
    """Does on the driver what RLinf does in its workers: calls `register` of ``RLINF_EXT_MODULE``'s module.

    Raises:
        ConfigError: The variable is not set, the module is not there, or its `register` does not call ours.
        DependencyNotInstalled: RLinf is missing.
    """
    name = environ.get(EXTENSION_VARIABLE)
    try:
        module = importlib.import_module(name or "")
    except (ImportError, ValueError) as e:
        raise ConfigError(f"Can't import {EXTENSION_VARIABLE}={name!r}: {e}. {EXTENSION_ADVICE}") from e
    with needs("The RLinf adapter", get=RLINF):
        envs = importlib.import_module(_MODULES[0])
    getattr(module, "register", lambda: None)()
    if not hasattr(envs.get_env_cls, _MARK):
        raise ConfigError(
            f"Expected {name}.register to call {__name__}.register, but RLinf does not know this package's env then. "
            f"{EXTENSION_ADVICE}"
        )


def get_env_class(find: Callable[..., Any]) -> Callable[..., Any]:
    """RLinf's `get_env_cls`, which answers with our env for configs that have our block.

    Args:
        find: RLinf's own.
    """

    def choose(env_type: str, env_cfg: Any = None) -> Any:
        block = env_cfg.get(BLOCK) if env_cfg is not None else None
        if block is not None:
            return importlib.import_module("verl_env_adapter.rlinf.env").RolloutEnv
        if env_cfg is not None and env_cfg.get("task_suite_name") == SUITE:
            raise ConfigError(f"Expected a block {BLOCK} beside task_suite_name: {SUITE}, got none.")
        return find(env_type, env_cfg)

    return choose
