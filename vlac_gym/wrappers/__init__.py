"""Wrappers around any Gymnasium env that yields RGB frames."""

__all__ = ["ActionChunk", "EpisodeVideoWrapper", "VLACRewardWrapper"]

from vlac_gym.wrappers.action_chunk import ActionChunk
from vlac_gym.wrappers.episode_video import EpisodeVideoWrapper
from vlac_gym.wrappers.vlac_reward import VLACRewardWrapper
