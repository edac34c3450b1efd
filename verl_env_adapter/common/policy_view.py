"""What LIBERO policies of the verl family see, and how a trainer's own configuration meets the block.

`policy_images`, `policy_state`; `host_settings`, `within_host_limit`, `refuse_env_resource`, `refuse_worlds`.

The critic's frames never pass through here: they stay upright.
"""

__all__ = [
    "POLICY_IMAGES",
    "host_settings",
    "policy_images",
    "policy_state",
    "refuse_env_resource",
    "refuse_worlds",
    "within_host_limit",
]

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from verl_env_adapter.common.conversion import rename_keys
from verl_env_adapter.common.settings import AdapterSettings, parse_settings, to_plain
from vlac_gym.errors import ConfigError
from vlac_gym.frames.convention import ImageConvention, convert_image
from vlac_gym.types import Frame

POLICY_IMAGES = {"image": "agentview_image", "wrist_image": "wrist_image"}
"""verl-vla's camera names -> this package's."""

_ABSENT = object()


def policy_images(observation: Mapping[str, Any], table: Mapping[str, str], where: str) -> dict[str, Frame]:
    """The pictures under a trainer's names, turned as OpenVLA-style policies want them (`RAW_ROTATED_180`).

    Args:
        observation: The env's; uint8 (H, W, 3), upright.
        table: Trainer's name -> env's name.
        where: The trainer, for the message.

    Raises:
        AdapterContractError: The env has no such picture.
    """
    frames = rename_keys(observation, table, where)
    return {name: convert_image(frame, ImageConvention.RAW_ROTATED_180) for name, frame in frames.items()}


def policy_state(observation: Mapping[str, Any], dtype: DTypeLike) -> NDArray[Any]:
    """End-effector position m (3), axis-angle rad (3), gripper joints m (2), as a copy in `dtype`."""
    return np.array(observation["state"], dtype=dtype)


def host_settings(
    block: Mapping[str, Any],
    host: Mapping[str, tuple[Any, Any]],
    *,
    defaults: Mapping[str, Any],
    where: str,
) -> AdapterSettings:
    """The block, completed by what the user told the trainer in the trainer's own keys.

    Args:
        block: The ``vlac_gym`` block.
        host: Name in the block's `env` -> (the trainer's value, the trainer's default). The trainer's value is
            used where the block says nothing; both may say the same.
        defaults: Top-level keys and `env` keys (``env.cameras``) that this adapter sets otherwise than the
            block's own defaults.
        where: The trainer's config section, for messages.

    Raises:
        ConfigError: Block and trainer say different things, or the block does not parse.
    """
    plain = to_plain(block)
    if not isinstance(plain, dict):
        raise ConfigError(f"Expected {where}.vlac_gym as a mapping, got {type(block).__name__}.")
    env = plain.get("env") or {}
    if not isinstance(env, dict):
        raise ConfigError(f"Expected {where}.vlac_gym.env as a mapping, got {env!r}.")
    env = dict(env)
    for name, (value, default) in host.items():
        value = to_plain(value)
        ours = env.get(name, _ABSENT)
        if ours is _ABSENT:
            env[name] = value
        elif value not in (default, ours):
            raise ConfigError(
                f"{where} says {value!r} where vlac_gym.env.{name} says {ours!r}. Say it in one of the two places."
            )
    for key, value in defaults.items():
        if key.startswith("env."):
            env.setdefault(key.removeprefix("env."), value)
        else:
            plain.setdefault(key, value)
    return parse_settings({**plain, "env": env})


def refuse_env_resource(settings: AdapterSettings, instead: str) -> None:
    """Refuses `placement.env_resource`, which has no effect where the trainer places its own env workers.

    Args:
        settings: The block.
        instead: What places them, for the message.

    Raises:
        ConfigError: It is set.
    """
    if settings.placement.env_resource is not None:
        raise ConfigError(
            f"placement.env_resource is {settings.placement.env_resource!r}, but envs run beside the trainer's own "
            f"workers here. Drop it, and use {instead}."
        )


def refuse_worlds(settings: AdapterSettings, why: str) -> None:
    """Refuses worlds on a GPU, where the trainer can't play them.

    Args:
        settings: The block.
        why: A clause that says why it can't, for the message.

    Raises:
        ConfigError: ``env.backend`` is ``warp``.
    """
    if settings.env.scenes is not None:
        raise ConfigError(f"Expected env.backend: mujoco, got {settings.env.backend!r}: {why}.")


def within_host_limit(settings: AdapterSettings, limit: int, where: str) -> AdapterSettings:
    """The settings with the trainer's step limit where they have none.

    Raises:
        ConfigError: Theirs is longer than the trainer plays, so that the value would never be paid.
    """
    ours = settings.env.max_episode_steps
    if ours is not None and ours > limit:
        raise ConfigError(
            f"Expected env.max_episode_steps of at most {limit}, since {where} plays no longer and the critic's "
            f"value is paid at the limit, got {ours}."
        )
    return (
        settings
        if ours is not None
        else replace(settings, env=replace(settings.env, max_episode_steps=limit))
    )
