"""What drives an environment: experts, replay, policies of one's own, and servers of vision-language-action models."""

__all__ = [
    "Action",
    "ChunkPolicy",
    "Policy",
    "StagedPolicy",
    "known_policies",
    "make_policy",
    "register_policy",
]

from vlac_gym.policies.base import Action, ChunkPolicy, Policy, StagedPolicy
from vlac_gym.policies.registry import known_policies, make_policy, register_policy
