"""Processes that draw on one GPU one at a time: `take_turns`, `turn`, `DrawTurns`, `can_take_turns`.

Contexts of several processes that draw at once get slices of the GPU's time in turn, and the driver of each keeps a
core busy while it waits. A process that waits for a lock sleeps.
"""

__all__ = ["DrawTurns", "can_take_turns", "take_turns", "turn"]

import importlib.util
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vlac_gym.errors import ConfigError, SimulatorError

_turns: "DrawTurns | None" = None


class DrawTurns:
    """This process's place among the user's processes that draw on one device, whichever program they are of.

    The kernel frees the lock of a process that ends, however it ends. It belongs to the process: threads of one do not
    exclude one another, and a second `DrawTurns` of its device would free what the first one holds when it is closed.

    Args:
        device: Number of the device, as EGL counts them.

    Attributes:
        path: The file that is locked; it stays empty.

    Raises:
        ConfigError: The file cannot be opened, or is somebody else's.
    """

    def __init__(self, device: int) -> None:
        self.path = Path(tempfile.gettempdir()) / f"vlac-gym-draw-{os.getuid()}-{device}.lock"
        self._file = _open_own(self.path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Waits for the turn, and ends it.

        Raises:
            SimulatorError: The file cannot be locked, as on some network file systems.
        """
        import fcntl  # Windows has none

        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
        except OSError as error:
            raise SimulatorError(
                f"Expected to lock {self.path} before drawing, got {error}. Set TMPDIR to a folder on a local disk, or "
                "leave draw_in_turns out."
            ) from error
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def can_take_turns() -> bool:
    """False where the system has no locks that end with their process (Windows)."""
    return importlib.util.find_spec("fcntl") is not None


def take_turns(device: int | None) -> None:
    """Has this process draw only in its turn from now on.

    Args:
        device: What it draws on, as EGL counts devices; None to draw at any time.

    Raises:
        ConfigError: See `DrawTurns`.
    """
    global _turns
    if _turns is not None:
        _turns.close()
        _turns = None
    if device is not None:
        _turns = DrawTurns(device)


@contextmanager
def turn(finish: Callable[[], object]) -> Iterator[None]:
    """One turn of this process; without `take_turns` nothing waits.

    Args:
        finish: Waits until the device has done what it was asked for in the turn; called at its end.

    Raises:
        SimulatorError: See `DrawTurns.held`.
    """
    if _turns is None:
        yield
        return
    with _turns.held():
        yield
        finish()


def _open_own(path: Path) -> int:
    """Opens a file of this user's that others cannot, for the temporary folder is everybody's."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, str(error)) from error
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
        os.close(file)
        raise _unusable(path, f"{stat.filemode(found.st_mode)} of user {found.st_uid}")
    return file


def _unusable(path: Path, found: str) -> ConfigError:
    return ConfigError(
        f"Expected {path} to be a file of user {os.getuid()} or to be absent, for draw_in_turns, got {found}. Remove "
        "it, set TMPDIR to another folder, or leave draw_in_turns out."
    )
