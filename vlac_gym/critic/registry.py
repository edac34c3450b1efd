"""From a spec string to a critic: `make_critic`, `check_critic`, `register_critic`, `known_critics`.

A spec is `NAME`, `NAME:TARGET` or `NAME:TARGET?key=value,key=value`; an http(s) URL means a critic server, and
`module:factory?key=value` calls a factory of your own, which returns a critic.
"""

__all__ = ["check_critic", "known_critics", "make_critic", "register_critic"]

from collections.abc import Mapping
from typing import Any

from vlac_gym.critic.base import BaseCritic, Critic
from vlac_gym.critic.wrapper import adapted
from vlac_gym.errors import ConfigError
from vlac_gym.specs.own_code import bound_factory
from vlac_gym.specs.registry import Registry


def _adopt(module: str, argument: str, options: Mapping[str, Any]) -> Critic:
    make, _ = bound_factory(module, argument, options)
    critic = make()
    check_critic(critic)
    if isinstance(critic, str):
        raise ConfigError(f"Expected a critic from {module}:{argument}, got the text {critic!r}.")
    made: Critic = critic
    return made


_CRITICS: Registry[Critic] = Registry(
    "critic",
    "'oracle' or 'http://host:8400'",
    {
        "oracle": "vlac_gym.critic.oracle:OracleCritic.from_spec",
        "noisy_oracle": "vlac_gym.critic.oracle:NoisyOracleCritic.from_spec",
        "random": "vlac_gym.critic.random:RandomCritic.from_spec",
        "recorded": "vlac_gym.critic.recorded:ReplayedCritic.from_spec",
        "ensemble": "vlac_gym.critic.ensemble:EnsembleCritic.from_spec",
        "scripted": "vlac_gym.critic.scripted:ScriptedCritic.from_spec",
        "nano": "vlac_gym.critic.nano.factory:from_package",
        "transformers": "vlac_gym.critic.vlac.factories:from_transformers",
        "swift": "vlac_gym.critic.vlac.factories:from_swift",
        "openai": "vlac_gym.critic.vlac.factories:from_openai",
        "http": "vlac_gym.service.client:RemoteCritic.from_http",
        "https": "vlac_gym.service.client:RemoteCritic.from_https",
    },
    _adopt,
    checks={
        "oracle": "vlac_gym.critic.oracle:OracleCritic.from_spec",
        "noisy_oracle": "vlac_gym.critic.oracle:NoisyOracleCritic.from_spec",
        "random": "vlac_gym.critic.random:RandomCritic.from_spec",
        "recorded": "vlac_gym.critic.recorded:ReplayedCritic.check_spec",
        "ensemble": "vlac_gym.critic.ensemble:EnsembleCritic.check_spec",
        "scripted": "vlac_gym.critic.scripted:ScriptedCritic.from_spec",
        "nano": "vlac_gym.critic.nano.factory:check_package",
        "transformers": "vlac_gym.critic.vlac.factories:check_transformers",
        "swift": "vlac_gym.critic.vlac.factories:check_swift",
        "openai": "vlac_gym.critic.vlac.factories:check_openai",
        "http": "vlac_gym.service.client_config:check_http",
        "https": "vlac_gym.service.client_config:check_https",
    },
)

_METHODS = ("success_prob", "progress", "value", "describe", "close")
"""What `Critic` demands."""


def known_critics() -> dict[str, str]:
    """Names that `make_critic` knows, with the factory behind each."""
    return _CRITICS.known()


def register_critic(name: str, target: str, check: str | None = None) -> None:
    """Adds a critic to the table that `make_critic` reads.

    Args:
        name: What a spec begins with: letters, digits and underscores.
        target: `module:callable`, imported on first use; called as `callable(argument, **options)` with the text
            after the name. `vlac_gym.specs.options.read_argument` takes that text apart.
        check: `module:callable`, called as `callable(argument)` where a spec is given long before its critic is built,
            such as to a wrapper: raises `ConfigError` for what the target would refuse, and builds nothing that costs.

    Raises:
        ConfigError: The name is taken or malformed, or the target or check has no colon.
    """
    _CRITICS.register(name, target, check)


def make_critic(spec: str, **options: Any) -> BaseCritic:
    """Builds the critic that a spec names.

    Args:
        spec: `oracle`, `noisy_oracle:tpr=0.8,fpr=0.05`, `transformers:PATH?device=cpu`, `openai:URL#MODEL`,
            `http://host:8400?timeout_s=5`, `ensemble:SPEC|SPEC`, `my_lab.critics:make_critic?threshold=0.5`, …
            `known_critics()` lists the names.
        **options: Keyword options of the critic's factory, e.g. `references=frames` for VLAC.

    Raises:
        ConfigError: Unknown name, or an argument that does not fit.
        DependencyNotInstalled: The critic needs an extra.
    """
    return adapted(_CRITICS.make(spec, **options))


def check_critic(critic: object) -> None:
    """Refuses what can't be a critic, without building one from a spec.

    Args:
        critic: An object with the methods of `Critic`, or a spec whose name is known and whose options fit. What only
            the model or its files can tell, such as a path or a device that is not there, is told when it is built.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(critic, str):
        _CRITICS.check(critic)
        return
    missing = [name for name in _METHODS if not callable(getattr(critic, name, None))]
    if isinstance(critic, type) or missing:
        why = f"which lacks {', '.join(missing)}" if missing else "a class"
        raise ConfigError(
            f"Expected a critic, or a spec such as 'oracle' or 'http://host:8400', got {critic!r}, {why}."
        )
