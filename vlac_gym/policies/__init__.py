"""What drives an environment when no model is at hand: random, zero, replay, and scripted experts."""

__all__ = ["Action", "Policy", "StagedPolicy", "known_policies", "make_policy", "register_policy"]

from vlac_gym.policies.base import Action, Policy, StagedPolicy
from vlac_gym.policies.registry import known_policies, make_policy, register_policy
