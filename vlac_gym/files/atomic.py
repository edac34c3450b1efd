"""Files that are whole or absent.

`write_bytes`, `write_text`, `write_json`, `append_text`; `partial_path` and `sync_tree` for what others write.
"""

__all__ = ["append_text", "partial_path", "sync_tree", "write_bytes", "write_json", "write_text"]

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def partial_path(path: Path) -> Path:
    """Where to write before moving to `path`: hidden, in the same folder, same suffix."""
    return path.with_name(f".partial-{os.getpid()}-{path.name}")


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `path` whole or not at all: a reader sees the old file or the new one."""
    partial = partial_path(path)
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON that every reader accepts; raises ValueError on NaN and infinities."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_text(path: Path, text: str) -> None:
    """Appends to `path` whole or not at all, by way of a copy: a cut never leaves half a line."""
    partial = partial_path(path)
    try:
        if path.exists():
            shutil.copyfile(path, partial)
        with partial.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sync_tree(path: Path, *, recursive: bool = True) -> None:
    """Flushes a file, or a folder with all that is in it, to the disk: a power cut then leaves it as it is.

    Args:
        path: The file or folder.
        recursive: False flushes a folder's list of names alone, e.g. after a rename in it.
    """
    within = sorted(path.rglob("*"), reverse=True) if recursive and path.is_dir() else []
    for one in (*within, path):
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
