"""Checks of single values among the settings: `check_choice`, `check_int`, `is_number`."""

__all__ = ["check_choice", "check_int", "is_number"]

from collections.abc import Sequence

from vlac_gym.errors import ConfigError, unknown_name


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raises `ConfigError`, with the nearest choice, unless `value` is one."""
    if value not in choices:
        raise unknown_name(name, str(value), choices)


def check_int(name: str, value: object, minimum: int) -> None:
    """Raises `ConfigError` unless `value` is an int of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"Expected {name} as an int >= {minimum}, got {value!r}.")


def is_number(value: object) -> bool:
    """True for an int or float that is no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)
