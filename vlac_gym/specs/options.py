"""The grammar of spec strings, ``NAME:TARGET?key=value,key=value``: `split_spec`, `read_argument`, `read_members`,
`option_types`, `parameter_hints`.

Where there is no target, the options may follow the colon at once: ``noisy_oracle:tpr=0.8``. What is made of several
specs has them as its target, with ``|`` between, and its own options after a last ``|``:
``NAME:SPEC|SPEC?key=value|?key=value``.
"""

__all__ = ["option_types", "parameter_hints", "parse_options", "read_argument", "read_members", "split_spec"]

import inspect
import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Union, Unpack, get_args, get_origin, get_type_hints

from vlac_gym.errors import ConfigError, unknown_name

_SIMPLE = (bool, int, float, str)
_BOOLS = {"true": True, "false": False}


def split_spec(spec: str) -> tuple[str, str]:
    """Name and argument of a spec: `nano`, `nano?reading=plain` and `transformers:PATH?device=cpu` alike."""
    text = spec.strip()
    end = min((at for at in (text.find(":"), text.find("?")) if at >= 0), default=len(text))
    return text[:end], text[end:].removeprefix(":")


def read_argument(
    argument: str,
    options: Mapping[str, type],
    where: str,
    *,
    given: Mapping[str, Any] | None = None,
    has_target: bool = True,
) -> tuple[str, dict[str, Any]]:
    """Target and options of a spec's argument.

    Args:
        argument: What follows the name. An existing path is a target as a whole, question marks included.
        options: Option -> type of its value: bool, int, float or str; see `option_types`.
        where: The spec's form for messages, e.g. ``"transformers:PATH"``.
        given: Options given beside the spec, which are added.
        has_target: Whether something must stand before the options.

    Raises:
        ConfigError: There is no target, or an option does not fit or is given twice.
    """
    if has_target:
        target, _, query = (argument, "", "") if Path(argument).exists() else argument.partition("?")
        if not target.strip():
            raise ConfigError(f"Expected a spec {where}, got nothing after the colon.")
    else:
        target, query = "", argument.removeprefix("?")
    return target.strip(), _joined(query, options, where, given or {})


def read_members(
    argument: str, options: Mapping[str, type], where: str, *, given: Mapping[str, Any] | None = None
) -> tuple[list[str], dict[str, Any]]:
    """The specs that an argument ``SPEC|SPEC|?key=value`` names, and its own options.

    A question mark before the last ``|`` begins the options of the spec that it stands in. A spec can't hold a ``|``.

    Args:
        argument: What follows the name.
        options: As of `read_argument`; the options behind the last ``|``.
        where: The spec's form for messages, e.g. ``"ensemble:SPEC|SPEC"``.
        given: Options given beside the spec, which are added.

    Raises:
        ConfigError: A spec is empty, or an option does not fit or is given twice.
    """
    *specs, last = (part.strip() for part in argument.split("|"))
    if not last.startswith("?"):
        specs, last = [*specs, last], ""
    if not all(specs):
        raise ConfigError(f"Expected a spec {where}, got an empty one among {specs}.")
    return specs, _joined(last.removeprefix("?"), options, where, given or {})


def parse_options(text: str, options: Mapping[str, type], where: str) -> dict[str, Any]:
    """Parses `key=value,key=value`.

    Args:
        text: The options; empty for none.
        options: Key -> type of its value: bool, int, float or str.
        where: What the options belong to, for error messages.

    Raises:
        ConfigError: A key is unknown, repeated or has no value, or a value does not parse.
    """
    found: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (piece.strip() for piece in item.partition("="))
        if not equals or not value:
            raise ConfigError(f"Expected {where} options as key=value, got {item!r}.")
        if key not in options:
            raise unknown_name(f"{where} option", key, options)
        if key in found:
            raise ConfigError(f"{where} option {key!r} is given twice.")
        kind = options[key]
        try:
            found[key] = _BOOLS[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError) as e:
            expected = "true or false" if kind is bool else kind.__name__
            hint = " A comma parts options, not &." if "&" in value else ""
            raise ConfigError(f"Expected {where} option {key} as {expected}, got {value!r}.{hint}") from e
    return found


def option_types(maker: Callable[..., Any], *, without: Collection[str] = ()) -> dict[str, type]:
    """The parameters of a class or function that a spec can give, with their types, from its annotations.

    Those are numbers, texts, choices of texts and true or false, also where None is allowed beside them.

    Args:
        maker: What the options are for, e.g. a config dataclass.
        without: Parameters that no spec may give, e.g. keys: specs end up in logs.
    """
    found = {name: _simple_type(hint) for name, hint in parameter_hints(maker).items() if name not in without}
    return {name: kind for name, kind in found.items() if kind is not None}


def parameter_hints(maker: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of a class or function with their annotations, in order; ``**options: Unpack[…]`` as its keys."""
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(maker, eval_str=True).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD and get_origin(parameter.annotation) is Unpack:
            found |= get_type_hints(get_args(parameter.annotation)[0])
        else:
            found[name] = parameter.annotation
    return found


def _joined(query: str, options: Mapping[str, type], where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a spec and those given beside it, none of them twice."""
    found = parse_options(query, options, where)
    if twice := sorted(found.keys() & given.keys()):
        raise ConfigError(f"Option {twice[0]!r} is given in the spec and as a keyword. Drop one.")
    return {**found, **given}


def _simple_type(hint: Any) -> type | None:
    if get_origin(hint) in (Union, types.UnionType):
        rest = [part for part in get_args(hint) if part is not type(None)]
        return _simple_type(rest[0]) if len(rest) == 1 else None
    if get_origin(hint) is Literal:
        return str if all(isinstance(choice, str) for choice in get_args(hint)) else None
    return hint if hint in _SIMPLE else None
