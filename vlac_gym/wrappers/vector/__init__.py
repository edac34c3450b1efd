"""Wrappers around vector envs, named as their counterparts for one env."""

__all__ = ["ActionChunk", "CurriculumWrapper", "EpisodeVideoWrapper", "VLACRewardWrapper"]

from vlac_gym.wrappers.vector.action_chunk import ActionChunk
from vlac_gym.wrappers.vector.curriculum import CurriculumWrapper
from vlac_gym.wrappers.vector.episode_video import EpisodeVideoWrapper
from vlac_gym.wrappers.vector.vlac_reward import VLACRewardWrapper
