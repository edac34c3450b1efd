"""Wrappers that must not lie inside the reward wrapper: `check_inner_wrappers`, `episode_enders`."""

__all__ = ["check_inner_wrappers", "episode_enders", "episode_enders_by_name", "nested"]

import re
from collections.abc import Sequence
from typing import Any

import gymnasium as gym

from vlac_gym.errors import ConfigError

_REWARD_WRAPPER = "VLACRewardWrapper"

_ENDERS = {
    "gymnasium": ("AtariPreprocessing", "Autoreset", "MaxAndSkipObservation", "RepeatAction"),
    "vlac_gym": ("ActionChunk", _REWARD_WRAPPER),
}
"""By package, the wrappers that reset or stop stepping where the wrapped env says that an episode is over."""


def episode_enders(env: gym.Env[Any, Any]) -> tuple[str, ...]:
    """Names of the wrappers in `env`, outermost first, that act on the end of an episode themselves.

    Inside the reward wrapper such a wrapper would let the simulator's success end a training episode, or a chunk of
    it, unseen.
    """
    found = []
    while isinstance(env, gym.Wrapper):
        for kind in type(env).__mro__:
            if kind.__name__ in _ENDERS.get(kind.__module__.partition(".")[0], ()):
                found.append(kind.__name__)
                break
        env = env.env
    return tuple(found)


def episode_enders_by_name(env_text: str) -> tuple[str, ...]:
    """As `episode_enders`, of an env in another process that only its text, ``str(env)``, tells of.

    Args:
        env_text: Such as ``<Autoreset<OrderEnforcing<CartPoleEnv instance>>>``.
    """
    known = {name for names in _ENDERS.values() for name in names}
    return tuple(name for name in re.findall(r"<(\w+)", env_text) if name in known)


def check_inner_wrappers(names: Sequence[str], where: str = "the env") -> None:
    """Raises `ConfigError`, with the right order, unless `episode_enders` found none.

    Args:
        names: What it found.
        where: In which env, for the message.
    """
    if _REWARD_WRAPPER in names:
        raise ConfigError(
            f"Expected one {_REWARD_WRAPPER}, got another inside {where}. Take one of them away."
        )
    if names:
        raise ConfigError(
            f"Expected {where} without {' and '.join(names)}, which would let the simulator's success end a training "
            f"episode. Put wrappers of this kind around {_REWARD_WRAPPER}: {nested(names)}."
        )


def nested(names: Sequence[str]) -> str:
    """How wrappers, outermost first, are put around the reward wrapper, as code."""
    code = f"{_REWARD_WRAPPER}(env, …)"
    for name in reversed(names):
        code = f"{name}({code})"
    return code
