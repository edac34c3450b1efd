"""Many envs at once: `make_vec` for LIBERO's tasks, `RolloutVectorEnv` for any env; loaded on first use."""

__all__ = ["RolloutVectorEnv", "make_vec"]

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlac_gym.vector.make import make_vec
    from vlac_gym.vector.rollout_env import RolloutVectorEnv

_MODULES = {"RolloutVectorEnv": "vlac_gym.vector.rollout_env", "make_vec": "vlac_gym.vector.make"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
