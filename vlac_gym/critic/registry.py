"""From a spec string to a critic: `make_critic`, `check_critic`, `register_critic`, `known_critics`.

A spec is `name`, `name:argument` or `name:key=value,key=value`; an http(s) URL means a critic server.
"""

__all__ = ["check_critic", "known_critics", "make_critic", "register_critic"]

import importlib
from collections.abc import Callable
from typing import Any

from vlac_gym.critic.base import Critic
from vlac_gym.errors import ConfigError, unknown_name

_FACTORIES: dict[str, str] = {
    "oracle": "vlac_gym.critic.oracle:OracleCritic.from_spec",
    "noisy_oracle": "vlac_gym.critic.oracle:NoisyOracleCritic.from_spec",
    "scripted": "vlac_gym.critic.scripted:ScriptedCritic.from_spec",
    "nano": "vlac_gym.critic.nano.factory:from_package",
    "transformers": "vlac_gym.critic.vlac.factories:from_transformers",
    "swift": "vlac_gym.critic.vlac.factories:from_swift",
    "openai": "vlac_gym.critic.vlac.factories:from_openai",
    "http": "vlac_gym.service.client:RemoteCritic.from_spec",
    "https": "vlac_gym.service.client:RemoteCritic.from_spec",
}
"""Name -> `module:factory`. A factory takes the spec's argument (text after the first colon) and options."""

_METHODS = ("success_prob", "progress", "value", "describe", "close")
"""What `Critic` demands."""


def known_critics() -> dict[str, str]:
    """Names that `make_critic` knows, with the factory behind each."""
    return dict(_FACTORIES)


def register_critic(name: str, target: str) -> None:
    """Adds a critic to the table that `make_critic` reads.

    Args:
        name: Word before the colon in a spec: letters, digits and underscores.
        target: `module:callable`, imported on first use; called as `callable(argument, **options)`.

    Raises:
        ConfigError: The name is taken or malformed, or the target has no colon.
    """
    if not name.isidentifier():
        raise ConfigError(f"Expected a critic name of letters, digits and underscores, got {name!r}.")
    if name in _FACTORIES:
        raise ConfigError(f"Critic {name!r} exists already, as {_FACTORIES[name]}. Choose another name.")
    if ":" not in target:
        raise ConfigError(f"Expected target as 'module:callable', got {target!r}.")
    _FACTORIES[name] = target


def make_critic(spec: str, **options: Any) -> Critic:
    """Builds the critic that a spec names.

    Args:
        spec: `oracle`, `noisy_oracle:tpr=0.8,fpr=0.05`, `transformers:PATH`, `openai:URL#MODEL`,
            `http://host:8400`, … `known_critics()` lists the names.
        **options: Keyword options of the critic's factory, e.g. `references=frames` for VLAC.

    Raises:
        ConfigError: Unknown name, or an argument that does not fit.
        DependencyNotInstalled: The critic needs an extra.
    """
    name, argument = _split(spec)
    factory = _load(_FACTORIES[name])
    critic: Critic = factory(spec.strip() if name in ("http", "https") else argument, **options)
    return critic


def check_critic(critic: object) -> None:
    """Refuses what can't be a critic, without building one from a spec.

    Args:
        critic: An object with the methods of `Critic`, or a spec whose name is known.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(critic, str):
        _split(critic)
        return
    missing = [name for name in _METHODS if not callable(getattr(critic, name, None))]
    if isinstance(critic, type) or missing:
        why = f"which lacks {', '.join(missing)}" if missing else "a class"
        raise ConfigError(
            f"Expected a critic, or a spec such as 'oracle' or 'http://host:8400', got {critic!r}, {why}."
        )


def _split(spec: object) -> tuple[str, str]:
    if not isinstance(spec, str) or not spec.strip():
        raise ConfigError(f"Expected a critic spec such as 'oracle' or 'http://host:8400', got {spec!r}.")
    name, _, argument = spec.strip().partition(":")
    if name not in _FACTORIES:
        raise unknown_name("critic", name, _FACTORIES)
    return name, argument


def _load(target: str) -> Callable[..., Any]:
    module_name, _, path = target.partition(":")
    found: Any = importlib.import_module(module_name)
    for part in path.split("."):
        found = getattr(found, part)
    factory: Callable[..., Any] = found
    return factory
