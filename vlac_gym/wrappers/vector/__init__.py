"""Wrappers around `vlac_gym.vector.RolloutVectorEnv`, named as their counterparts for one env; loaded on first use."""

__all__ = ["ActionChunk", "CurriculumWrapper", "VLACRewardWrapper"]

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlac_gym.wrappers.vector.action_chunk import ActionChunk
    from vlac_gym.wrappers.vector.curriculum import CurriculumWrapper
    from vlac_gym.wrappers.vector.vlac_reward import VLACRewardWrapper

_MODULES = {
    "ActionChunk": "vlac_gym.wrappers.vector.action_chunk",
    "CurriculumWrapper": "vlac_gym.wrappers.vector.curriculum",
    "VLACRewardWrapper": "vlac_gym.wrappers.vector.vlac_reward",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
