"""From a spec string to a policy: `make_policy`, `register_policy`, `known_policies`.

A spec is `name` or `name:argument`: ``random``, ``zero``, ``replay:PATH``, ``expert``,
``expert:noise=0.1,fail=drop``.
"""

__all__ = ["known_policies", "make_policy", "register_policy"]

import importlib
from collections.abc import Callable
from typing import Any

from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.policies.base import Policy

_FACTORIES: dict[str, str] = {
    "expert": "vlac_gym.policies.expert:ExpertPolicy.from_spec",
    "random": "vlac_gym.policies.simple:RandomPolicy.from_spec",
    "replay": "vlac_gym.policies.replay:ReplayPolicy.from_spec",
    "zero": "vlac_gym.policies.simple:ZeroPolicy.from_spec",
}
"""Name -> `module:factory`. A factory takes the spec's argument (text after the first colon)."""


def known_policies() -> dict[str, str]:
    """Names that `make_policy` knows, with the factory behind each."""
    return dict(_FACTORIES)


def register_policy(name: str, target: str) -> None:
    """Adds a policy to the table that `make_policy` reads.

    Args:
        name: Word before the colon in a spec: letters, digits and underscores.
        target: `module:callable`, imported on first use; called as `callable(argument)`.

    Raises:
        ConfigError: The name is taken or malformed, or the target has no colon.
    """
    if not name.isidentifier():
        raise ConfigError(f"Expected a policy name of letters, digits and underscores, got {name!r}.")
    if name in _FACTORIES:
        raise ConfigError(
            f"Policy {name!r} is registered already, as {_FACTORIES[name]}. Choose another name."
        )
    if ":" not in target:
        raise ConfigError(f"Expected target as 'module:callable', got {target!r}.")
    _FACTORIES[name] = target


def make_policy(spec: str) -> Policy:
    """Builds the policy that a spec names.

    Args:
        spec: `random`, `zero`, `replay:PATH`, `expert`, `expert:noise=0.1,fail=drop`, …

    Raises:
        ConfigError: Unknown name, or an argument that does not fit.
    """
    if not isinstance(spec, str) or not spec.strip():
        raise ConfigError(f"Expected a policy spec such as 'expert' or 'replay:actions.npy', got {spec!r}.")
    name, _, argument = spec.strip().partition(":")
    if name not in _FACTORIES:
        raise unknown_name("policy", name, _FACTORIES)
    policy: Policy = _load(_FACTORIES[name])(argument)
    return policy


def _load(target: str) -> Callable[[str], Any]:
    module_name, _, path = target.partition(":")
    found: Any = importlib.import_module(module_name)
    for part in path.split("."):
        found = getattr(found, part)
    factory: Callable[[str], Any] = found
    return factory
