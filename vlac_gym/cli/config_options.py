"""`--config FILE` for every command: the file's options, as arguments before those of the command line."""

__all__ = ["with_config"]

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.extras import needs
from vlac_gym.files.config_file import read_config

with needs("The command line", "cli"):
    import tyro

_POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]


def with_config(kind: type, args: Sequence[str]) -> list[str]:
    """The arguments with `--config FILE` replaced by what the file says; where both name an option, `args` wins.

    The file names options as the dataclass does (`task_suite`), nested ones in nested mappings.

    Args:
        kind: The dataclass of the command's options.
        args: The command line.

    Raises:
        ConfigError: The file can't be read, or names what is no option.
    """
    rest, paths = _split(args)
    if not paths:
        return rest
    if len(paths) > 1:
        raise ConfigError(f"Expected one --config, got {', '.join(paths)}.")
    path = Path(paths[0]).expanduser()
    options = list(_arguments(kind, read_config(path), path))
    # The longest first: a list of values ends where the next option begins.
    return [text for option in sorted(options, key=len, reverse=True) for text in option] + rest


def _split(args: Sequence[str]) -> tuple[list[str], list[str]]:
    rest, paths = [], []
    left = iter(args)
    for arg in left:
        if arg == "--config":
            paths.append(next(left, ""))
        elif arg.startswith("--config="):
            paths.append(arg.partition("=")[2])
        else:
            rest.append(arg)
    if "" in paths:
        raise ConfigError("Expected a file after --config, got nothing.")
    return rest, paths


def _arguments(kind: type, content: Mapping[str, Any], path: Path, prefix: str = "") -> Iterator[list[str]]:
    names = _option_names(kind)
    types = typing.get_type_hints(kind)
    for key, value in content.items():
        if key not in names:
            raise unknown_name(f"option in {path}", prefix + key, [prefix + name for name in names])
        field, option = names[key]
        if dataclasses.is_dataclass(types[field]) and isinstance(value, dict):
            yield from _arguments(typing.cast(type, types[field]), value, path, f"{prefix}{key}.")
        elif isinstance(value, bool) and types[field] is bool:
            head, dot, tail = f"{prefix}{option}".rpartition(".")
            yield [_flag(f"{head}{dot}{'' if value else 'no-'}{tail}")]
        elif isinstance(value, dict):
            raise ConfigError(f"Expected a value for {prefix}{key} in {path}, got {value!r:.80}.")
        else:
            yield [_flag(prefix + option), *map(str, value if isinstance(value, list) else [value])]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _option_names(kind: type) -> dict[str, tuple[str, str]]:
    """Name in the file -> name of the field and of the option, for all but positional ones."""
    hints = typing.get_type_hints(kind, include_extras=True)
    names = {}
    for field in dataclasses.fields(kind):
        extras = getattr(hints[field.name], "__metadata__", ())
        if _POSITIONAL not in extras:
            renamed = next((name for e in extras if (name := getattr(e, "name", None))), field.name)
            names[renamed] = (field.name, renamed)
    return names
