"""Names that spec strings begin with, and the factories behind them: `Registry`."""

__all__ = ["Registry"]

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.specs.options import split_spec
from vlac_gym.specs.own_code import names_module

Made = TypeVar("Made")


class Registry(Generic[Made]):
    """A table from name to factory; factories are imported on first use.

    A name that is not in the table may be a module of the user's own, followed by a factory in it:
    ``my_lab.policies:make_policy?checkpoint=PATH``; see `vlac_gym.specs.own_code`.

    Args:
        kind: What is made, e.g. ``"critic"``, for messages.
        example: A spec, for messages.
        factories: Name -> `module:callable`, called as `callable(argument, **options)` with the text that
            follows the name in a spec; see `vlac_gym.specs.options`.
        adopt: Makes what ``module:factory`` names, from module, argument and options.
    """

    def __init__(
        self,
        kind: str,
        example: str,
        factories: Mapping[str, str],
        adopt: Callable[[str, str, Mapping[str, Any]], Made],
    ) -> None:
        self._kind = kind
        self._example = example
        self._factories = dict(factories)
        self._adopt = adopt

    def known(self) -> dict[str, str]:
        """Every name with the factory behind it."""
        return dict(self._factories)

    def register(self, name: str, target: str) -> None:
        """Adds a name.

        Raises:
            ConfigError: The name is taken or malformed, or the target has no colon.
        """
        if not name.isidentifier():
            raise ConfigError(
                f"Expected a {self._kind} name of letters, digits and underscores, got {name!r}."
            )
        if name in self._factories:
            raise ConfigError(
                f"{self._kind.capitalize()} {name!r} exists already, as {self._factories[name]}. "
                "Choose another name."
            )
        if ":" not in target:
            raise ConfigError(f"Expected target as 'module:callable', got {target!r}.")
        self._factories[name] = target

    def check(self, spec: object) -> tuple[str, str]:
        """Name and argument of a spec whose name is known, or a module that Python finds; makes nothing.

        Raises:
            ConfigError: Not a text, or an unknown name.
        """
        if not isinstance(spec, str) or not spec.strip():
            raise ConfigError(f"Expected a {self._kind} spec such as {self._example}, got {spec!r}.")
        name, argument = split_spec(spec)
        if name not in self._factories and not names_module(name, argument):
            unknown = unknown_name(self._kind, name, self._factories)
            raise ConfigError(
                f"{unknown} One of your own is written module:factory, and Python must find the module."
            )
        return name, argument

    def make(self, spec: str, **options: Any) -> Made:
        """Makes what a spec names.

        Raises:
            ConfigError: Unknown name, or an argument that does not fit.
            DependencyNotInstalled: It needs an extra.
        """
        name, argument = self.check(spec)
        if name not in self._factories:
            return self._adopt(name, argument, options)
        module_name, _, path = self._factories[name].partition(":")
        factory: Any = importlib.import_module(module_name)
        for part in path.split("."):
            factory = getattr(factory, part)
        made: Made = factory(argument, **options)
        return made
