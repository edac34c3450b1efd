"""Wrappers around any Gymnasium env that yields RGB frames; loaded on first use."""

__all__ = ["ActionChunk", "EpisodeVideoWrapper", "VLACRewardWrapper"]

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlac_gym.wrappers.action_chunk import ActionChunk
    from vlac_gym.wrappers.episode_video import EpisodeVideoWrapper
    from vlac_gym.wrappers.vlac_reward import VLACRewardWrapper

_MODULES = {
    "ActionChunk": "vlac_gym.wrappers.action_chunk",
    "EpisodeVideoWrapper": "vlac_gym.wrappers.episode_video",
    "VLACRewardWrapper": "vlac_gym.wrappers.vlac_reward",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
