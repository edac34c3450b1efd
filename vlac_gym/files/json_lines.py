"""Files of JSON lines that only grow, of which a cut costs the last line at most.

`append_lines`, `read_lines`, `drop_cut_line`.
"""

__all__ = ["append_lines", "drop_cut_line", "read_lines"]

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Appends JSON texts, a line each, and flushes them to the disk; how long it takes does not grow with the file.

    A process killed in it leaves whole lines and at worst a part of one behind, which `read_lines` passes over and
    `drop_cut_line` removes. An error (a full disk) leaves the file as it was.
    """
    text = "".join(f"{line}\n" for line in lines)
    with path.open("ab") as file:
        size = file.tell()
        try:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, size)
            raise


def read_lines(path: Path) -> list[Any]:
    """The whole lines.

    Raises:
        OSError: The file can't be read.
        ValueError: A whole line is no JSON.
    """
    data = path.read_bytes()
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def drop_cut_line(path: Path) -> int:
    """Removes what comes after the last whole line, before more is appended; returns the bytes that are left."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    return whole
