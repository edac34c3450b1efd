"""Arguments of a command, parsed by tyro, whose complaints become one line: `parse_arguments`."""

__all__ = ["parse_arguments"]

import contextlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs

ArgsType = TypeVar("ArgsType")

_FRAME = re.compile(r"^\s*│|│\s*$|[╭╰].*[╮╯]|\x1b\[[0-9;]*m")
_HELP_INDENT = 8
"""From this column on, tyro repeats an option's help text."""


def parse_arguments(kind: type[ArgsType], args: Sequence[str], *, prog: str, description: str) -> ArgsType:
    """The arguments as an instance of the dataclass `kind`; `--config FILE` adds those of a YAML file.

    Raises:
        ConfigError: They don't fit, or one of them is empty, as an unset shell variable leaves it.
        DependencyNotInstalled: tyro is missing.
        SystemExit: Help was asked for, and printed.
    """
    with needs("The command line", "cli"):
        import tyro

        from vlac_gym.cli.config_options import with_config
    _refuse_empty(args)
    args = with_config(kind, args)
    description += " --config FILE takes options from a YAML file (name: value); the command line wins."
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, args=args, prog=prog, description=description)
    except SystemExit as e:
        if not e.code:
            raise
        raise ConfigError(f"{_one_line(complaint.getvalue())}. See {prog} --help.") from None


def _refuse_empty(args: Sequence[str]) -> None:
    for before, arg in zip(["the first argument", *args], args):
        if not arg.strip() or re.fullmatch(r"--[^=]+=\s*", arg):
            raise ConfigError(f"Expected a value for {arg.strip('= ') or before}, got an empty text.")


def _one_line(box: str) -> str:
    """What tyro's box says, without its frame, the help texts and the pointer to the help."""
    parts: list[list[str]] = [[]]
    for row in box.splitlines():
        text = _FRAME.sub("", row).rstrip()
        if text.strip("─ ") == "":
            parts.append([])
        elif len(text) - len(text.lstrip()) < _HELP_INDENT:
            parts[-1].append(text.strip())
    said = [" ".join(lines) for lines in parts if lines]
    kept = [line for line in said if not line.startswith(("For full helptext", "Argument helptext"))]
    return "; ".join(line.rstrip(".") for line in kept)
