"""Names that spec strings begin with, and the factories behind them: `Registry`."""

__all__ = ["Registry"]

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Generic, TypeVar

from vlac_gym.errors import ConfigError, DependencyNotInstalled, unknown_name
from vlac_gym.specs.options import split_spec
from vlac_gym.specs.own_code import names_module
from vlac_gym.specs.targets import load_target

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
        checks: Name -> `module:callable`, called with the argument: raises what the factory would raise for it, and
            neither loads a model nor opens a connection. A factory that makes something cheap is its own check.
    """

    def __init__(
        self,
        kind: str,
        example: str,
        factories: Mapping[str, str],
        adopt: Callable[[str, str, Mapping[str, Any]], Made],
        checks: Mapping[str, str] | None = None,
    ) -> None:
        self._kind = kind
        self._example = example
        self._factories = dict(factories)
        self._adopt = adopt
        self._checks = dict(checks or {})

    def known(self) -> dict[str, str]:
        """Every name with the factory behind it."""
        return dict(self._factories)

    def register(self, name: str, target: str, check: str | None = None) -> None:
        """Adds a name, with its check if it has one.

        Raises:
            ConfigError: The name is taken or malformed, or the target or check has no colon.
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
        for what, path in (("target", target), ("check", check)):
            if path is not None and ":" not in path:
                raise ConfigError(f"Expected {what} as 'module:callable', got {path!r}.")
        self._factories[name] = target
        if check is not None:
            self._checks[name] = check

    def check(self, spec: object) -> None:
        """Refuses a spec that `make` would refuse, as far as can be told without making anything.

        That is the name and, where there is a check for it, what follows. A module of one's own is found, not imported.
        What needs a package that is missing is left to `make`, which may run in another process or never.

        Raises:
            ConfigError: Not a text, an unknown name, or an argument that does not fit.
        """
        name, argument = self._parts(spec)
        if name in self._checks:
            with suppress(DependencyNotInstalled):
                load_target(self._checks[name])(argument)

    def make(self, spec: str, **options: Any) -> Made:
        """Makes what a spec names.

        Raises:
            ConfigError: Unknown name, or an argument that does not fit.
            DependencyNotInstalled: It needs an extra.
        """
        name, argument = self._parts(spec)
        if name not in self._factories:
            return self._adopt(name, argument, options)
        made: Made = load_target(self._factories[name])(argument, **options)
        return made

    def _parts(self, spec: object) -> tuple[str, str]:
        """Name and argument of a spec whose name is known, or a module that Python finds."""
        if not isinstance(spec, str) or not spec.strip():
            raise ConfigError(f"Expected a {self._kind} spec such as {self._example}, got {spec!r}.")
        name, argument = split_spec(spec)
        if name not in self._factories and not names_module(name, argument):
            unknown = unknown_name(self._kind, name, self._factories)
            raise ConfigError(
                f"{unknown} One of your own is written module:factory, and Python must find the module."
            )
        return name, argument
