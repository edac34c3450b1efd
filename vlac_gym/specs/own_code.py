"""Factories of the user's own, ``module:factory?key=value``: `bound_factory`, `names_module`."""

__all__ = ["bound_factory", "names_module"]

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.specs.options import option_types, parse_options

_SIMPLE = (bool, int, float, str)


def names_module(name: str, argument: str) -> bool:
    """Whether a spec's name is a module that Python finds, and a factory's name follows; imports only its parents."""
    parts = [*name.split("."), *argument.partition("?")[0].split(".")]
    if not all(part.isidentifier() for part in parts):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def bound_factory(
    name: str,
    argument: str,
    given: Mapping[str, Any] | None = None,
    *,
    reserved: Mapping[str, type] | None = None,
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Imports `name` and finds the factory that `argument` begins with, with the options that follow; calls nothing.

    An option is read as its parameter's annotation says (bool, int, float or str), else as its default's type, else as
    text.

    Args:
        name: The module, e.g. ``"my_lab.policies"``.
        argument: ``"factory?key=value,key=value"``; the factory may be inside a class, as in ``"Policy.load"``.
        given: Keyword arguments beside those of the spec.
        reserved: Options that are the caller's, with their types, unless the factory has a parameter of that name.

    Returns:
        The factory with its options, to be called without any, and the reserved options that were given.

    Raises:
        ConfigError: No such factory, or its options do not fit.
    """
    path, _, query = argument.partition("?")
    where = f"{name}:{path}"
    factory = _find(name, path)
    kinds = _parameters(factory)
    extra = {key: kind for key, kind in (reserved or {}).items() if key not in kinds}
    options = parse_options(query, {**kinds, **extra}, where)
    kept = {key: options.pop(key) for key in extra if key in options}
    arguments = {**options, **(given or {})}
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as e:
        raise ConfigError(f"Can't call {where} with {arguments or 'no options'}: {e}.") from e
    return partial(factory, **arguments), kept


def _find(name: str, path: str) -> Callable[..., Any]:
    found: Any = importlib.import_module(name)
    for part in path.split("."):
        if not hasattr(found, part):
            public = [key for key in vars(found) if not key.startswith("_") and callable(getattr(found, key))]
            raise unknown_name(f"factory in {name}", path, public)
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"Expected a function or class at {name}:{path}, got {found!r}.")
    factory: Callable[..., Any] = found
    return factory


def _parameters(factory: Callable[..., Any]) -> dict[str, type]:
    """The factory's parameters that a spec can give, with the types their texts become."""
    plain = inspect.signature(factory).parameters.values()
    bare = {
        p.name: type(p.default) if type(p.default) in _SIMPLE else str
        for p in plain
        if p.annotation is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    return bare | option_types(factory)
