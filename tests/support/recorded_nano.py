"""nano, whose answers are written down: the critic `recorded_nano:make?path=FILE` of a trainer's settings."""

from vlac_gym.critic.base import Critic
from vlac_gym.critic.recorded import RecordedCritic
from vlac_gym.critic.registry import make_critic


def make(path: str) -> Critic:
    return RecordedCritic(make_critic("nano"), path)
