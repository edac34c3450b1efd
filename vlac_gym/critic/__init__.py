"""Critics: `make_critic` builds one from a spec, `Critic` is the protocol they share.

`CriticFailurePolicy` says what happens when one does not answer.
"""

from vlac_gym.critic.base import BaseCritic, Critic
from vlac_gym.critic.failure_policy import CriticFailurePolicy
from vlac_gym.critic.registry import known_critics, make_critic, register_critic
from vlac_gym.critic.wrapper import CriticWrapper

__all__ = [
    "BaseCritic",
    "Critic",
    "CriticFailurePolicy",
    "CriticWrapper",
    "known_critics",
    "make_critic",
    "register_critic",
]
