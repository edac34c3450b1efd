"""Driving vector envs by a policy: `PipelinedRollout`, `RolloutStep`."""

__all__ = ["PipelinedRollout", "RolloutStep"]

from vlac_gym.rollout.pipelined import PipelinedRollout, RolloutStep
