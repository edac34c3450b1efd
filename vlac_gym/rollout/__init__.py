"""Driving vector envs by a policy, and following their episodes."""

__all__ = ["EpisodeLog", "FinishedEpisode", "PipelinedRollout", "RolloutStep"]

from vlac_gym.rollout.pipelined import PipelinedRollout, RolloutStep
from vlac_gym.vector.finished import EpisodeLog, FinishedEpisode
