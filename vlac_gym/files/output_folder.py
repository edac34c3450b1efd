"""The folder that a command writes to, checked and locked before any work: `claim_folder`. Needs filelock."""

__all__ = ["claim_folder"]

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs

_LOCK = ".vlac-gym.lock"
_LEFTOVERS = (_LOCK, ".partial-")
"""What a killed command can leave behind: beginnings of names that count as nothing."""


@contextmanager
def claim_folder(
    path: Path, *, resume: bool = False, ours: Sequence[str] = (), what: str = "--out"
) -> Iterator[Path]:
    """Makes a folder this process's alone to write to while the block runs; parents are made too.

    On the way out the lock goes, and so does every folder that was made here and is still empty: a command that
    fails before it wrote anything leaves no trace. A lock dies with its process, however that ends.

    Args:
        path: The folder.
        resume: Without it the folder must be new or empty. With it, it may hold files that match `ours`; the
            caller checks whether they can be continued.
        ours: Names (shell patterns) of what the command writes there, if it can continue what it began.
        what: What the user calls the folder, for messages.

    Raises:
        ConfigError: It is a file, can't be made or written to, holds other files, or another process writes to it.
        DependencyNotInstalled: filelock is missing.

    Example:
        >>> with claim_folder(Path("runs/card")) as folder:  # doctest: +SKIP
        ...     write_card(card, folder)
    """
    with needs("Writing results", "cli"):
        from filelock import FileLock, Timeout
    made = _make(path, what)
    lock = FileLock(path / _LOCK)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout as e:
            raise ConfigError(
                f"Another command is writing to {path} right now. Wait for it, or choose another folder."
            ) from e
        except OSError as e:
            raise _unwritable(path, e) from e
        try:
            _check_content(path, what, ours, resume=resume)
            yield path
        finally:
            # While it is held: whoever opened the file before sees that it is gone, and makes a new one.
            (path / _LOCK).unlink(missing_ok=True)
            lock.release()
    finally:
        for folder in made:
            with suppress(OSError):  # not empty, or somebody else's by now
                folder.rmdir()


def _make(path: Path, what: str) -> list[Path]:
    """Makes the folder; returns those that were not there, the innermost first."""
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as e:
        raise ConfigError(f"Expected a folder for {what}, got the file {path}. Choose another.") from e
    except OSError as e:
        raise _unwritable(path, e) from e
    return missing


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"Can't write to {path}: {error.strerror or error}. Choose another folder.")


def _check_content(path: Path, what: str, ours: Sequence[str], *, resume: bool) -> None:
    held = sorted(file.name for file in path.iterdir() if not file.name.startswith(_LEFTOVERS))
    strange = [name for name in held if not any(fnmatch(name, pattern) for pattern in ours)]
    unwanted = strange if resume else held
    if unwanted:
        shown = ", ".join(unwanted[:3]) + (", …" if len(unwanted) > 3 else "")
        mend = (
            "Continue it with --resume, or choose another folder"
            if ours and not strange
            else "Choose another"
        )
        raise ConfigError(
            f"Expected a new or empty folder for {what}, {path} holds {shown}; nothing is overwritten. {mend}."
        )
