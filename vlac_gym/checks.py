"""Checks of single values among arguments and options: `check_choice`, `check_int`, `check_unit`, `is_number`."""

__all__ = ["check_choice", "check_int", "check_unit", "is_number"]

import sys
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from vlac_gym.errors import ConfigError, unknown_name


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raises `ConfigError`, with the nearest choice, unless `value` is one."""
    if value not in choices:
        raise unknown_name(name, str(value), choices)


def check_int(name: str, value: object, minimum: int) -> None:
    """Raises `ConfigError` unless `value` is an int of at least `minimum`; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"Expected {name} as an int >= {minimum}, got {value!r}.")


def check_unit(name: str, value: object) -> None:
    """Raises `ConfigError` unless `value` is a number in [0, 1], of Python's or numpy's floats or an int."""
    number = float(value) if isinstance(value, np.floating) else value
    if not is_number(number) or not 0.0 <= number <= 1.0:
        raise ConfigError(f"Expected {name} in [0, 1], got {value!r}.")


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite int or float, and no bool."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # unlike math.isfinite, it takes an int of any size
