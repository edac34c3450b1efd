"""Critics: `make_critic` builds one from a spec, `Critic` is the protocol they share."""

from vlac_gym.critic.base import Critic
from vlac_gym.critic.registry import known_critics, make_critic, register_critic

__all__ = ["Critic", "known_critics", "make_critic", "register_critic"]
