"""Driving vector envs by a policy, and following their episodes."""

__all__ = [
    "AsyncRollout",
    "BatchPolicy",
    "EpisodeLog",
    "EpisodeStart",
    "FinishedEpisode",
    "PipelinedRollout",
    "PlayedEpisode",
    "PolicyRow",
    "RolloutStep",
    "StepBuffer",
]

from vlac_gym.rollout.async_rollout import AsyncRollout, BatchPolicy
from vlac_gym.rollout.pipelined import PipelinedRollout, RolloutStep
from vlac_gym.rollout.playing import EpisodeStart, PlayedEpisode, PolicyRow
from vlac_gym.rollout.step_buffer import StepBuffer
from vlac_gym.vector.finished import EpisodeLog, FinishedEpisode
