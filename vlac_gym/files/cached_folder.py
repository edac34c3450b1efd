"""A folder in a cache, made once, by whichever process needs it first: `cached_folder`. Needs filelock."""

__all__ = ["cached_folder"]

import shutil
from collections.abc import Callable
from pathlib import Path

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.atomic import sync_tree


def cached_folder(path: Path, make: Callable[[Path], object], *, timeout_s: float = 3600.0) -> Path:
    """Makes a folder unless it is there. It is whole or absent: `make` writes beside it, and a rename ends the work.

    Processes that need it at the same time wait for the one that makes it. What one that was killed left behind is
    thrown away; its lock dies with it.

    Args:
        path: The folder; parents are made.
        make: Makes it at the path that it is given, in the same parent.
        timeout_s: How long to wait for another process, in seconds.

    Returns:
        `path`.

    Raises:
        ConfigError: The cache can't be written to, or another process took longer than `timeout_s`; what `make` raises.
        DependencyNotInstalled: filelock is missing.
    """
    if path.is_dir():
        return path
    with needs("A cache", "vlac"):
        from filelock import FileLock, Timeout
    beside = path.with_name(f".partial-{path.name}")
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout_s)
    except Timeout as e:
        raise ConfigError(
            f"Another process has been making {path} for {timeout_s:.0f} s. Wait for it, or end it."
        ) from e
    except OSError as e:
        raise ConfigError(f"Can't write to the cache {path.parent}: {e.strerror or e}.") from e
    try:
        if not path.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
            make(beside)
            sync_tree(beside)
            beside.rename(path)
            sync_tree(path.parent, recursive=False)
    finally:
        lock.release()
    return path
