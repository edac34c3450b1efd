"""The options in a spec such as ``noisy_oracle:tpr=0.8,fpr=0.05``: `parse_options`."""

__all__ = ["parse_options"]

from collections.abc import Mapping
from typing import Any

from vlac_gym.errors import ConfigError, unknown_name


def parse_options(argument: str, types: Mapping[str, type], where: str) -> dict[str, Any]:
    """Parses `key=value,key=value`.

    Args:
        argument: The text; empty for no options.
        types: Key -> type of its value: int, float or str.
        where: What the options belong to, for error messages.

    Raises:
        ConfigError: A key is unknown, repeated or has no value, or a value does not parse.
    """
    options: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in argument.split(","))):
        key, equals, text = (piece.strip() for piece in item.partition("="))
        if not equals or not text:
            raise ConfigError(f"Expected {where} options as key=value, got {item!r}.")
        if key not in types:
            raise unknown_name(f"{where} option", key, types)
        if key in options:
            raise ConfigError(f"{where} option {key!r} is given twice.")
        try:
            options[key] = types[key](text)
        except ValueError as e:
            raise ConfigError(f"Expected {where} option {key} as {types[key].__name__}, got {text!r}.") from e
    return options
