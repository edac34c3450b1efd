"""Settled starts of episodes on disk, for later processes: `StartCache`, `start_cache_folder`, `start_key`."""

__all__ = [
    "MAX_BYTES",
    "START_CACHE_VARIABLE",
    "StartCache",
    "open_start_cache",
    "start_cache_folder",
    "start_key",
]

import functools
import hashlib
import importlib.metadata
import logging
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlac_gym import __version__
from vlac_gym.envs.libero.moments import Moment
from vlac_gym.errors import ConfigError
from vlac_gym.files.atomic import write_bytes

_LOGGER = logging.getLogger(__name__)

START_CACHE_VARIABLE = "VLAC_GYM_START_CACHE"
"""Environment variable with the folder of settled starts, for envs that are given none."""

MAX_BYTES = 128 * 2**20
"""Room for some 13,000 starts of 10 kB; the official ones of LIBERO's five suites are 6,500."""

_SUFFIX = ".start"
_DIGEST_BYTES = hashlib.sha256().digest_size
_WRITES_PER_CHECK = 64
"""How many files a process writes between two looks at what the folder holds."""

_STEPPING_CODE = ("control.py", "moments.py", "simulator.py")
_PACKAGES = ("mujoco", "robosuite", "numpy", "numba", "scipy")
_PROCESSOR = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU part", "CPU variant", "Features",
)  # fmt: skip
_ARITHMETIC_VARIABLES = (
    "NPY_DISABLE_CPU_FEATURES", "NUMBA_CPU_FEATURES", "NUMBA_CPU_NAME", "NUMBA_DISABLE_JIT", "OPENBLAS_CORETYPE",
)  # fmt: skip


def start_cache_folder(chosen: str | os.PathLike[str] | None) -> Path | None:
    """The folder that an env keeps settled starts in: the chosen one, else `START_CACHE_VARIABLE`'s; None for none.

    Raises:
        ConfigError: It is a file.
    """
    name = os.environ.get(START_CACHE_VARIABLE) or None if chosen is None else chosen
    if name is None:
        return None
    folder = Path(name).expanduser()
    if folder.exists() and not folder.is_dir():
        where = "start_cache" if chosen is not None else START_CACHE_VARIABLE
        raise ConfigError(f"Expected {where} to name a folder, got the file {folder}. Choose another.")
    return folder


@functools.cache
def open_start_cache(folder: Path) -> "StartCache":
    """The one `StartCache` of a folder in this process."""
    return StartCache(folder)


class StartCache:
    """Settled starts in a folder that any number of processes share, one file each.

    A file is named by all that its content follows from (`start_key`), so that none goes out of date: what has changed
    is another file. Files are whole or absent, and equal whoever wrote them, so that there are no locks. A damaged
    file is settled anew and written again; a folder that can't be read or written costs time and a warning, no episode.

    Args:
        folder: Made when the first start is written.
        max_bytes: The files written first go when the folder holds more, by up to 64 files of each process.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._num_written = 0
        self._has_warned = False

    def settled(self, key: str, built: Moment, settle: Callable[[], Moment]) -> Moment:
        """The start under a key; if there is none, what `settle` gives, which is kept.

        Args:
            key: From `start_key`.
            built: The simulator's first moment, which the key was made of.
            settle: Simulates it.
        """
        path = self.folder / f"{key}{_SUFFIX}"
        content = self._read(path)
        if content is not None:
            return Moment.from_bytes(content, built)
        moment = settle()
        self._write(path, moment.to_bytes(built))
        return moment

    def num_bytes(self) -> tuple[int, int]:
        """Number of files in the folder, and their sum in bytes."""
        sizes = [size for _, size, _ in self._files()]
        return len(sizes), sum(sizes)

    def _read(self, path: Path) -> bytes | None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as e:
            self._warn(f"The start cache {self.folder} can't be read: {e}.")
            return None
        digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            _LOGGER.warning("%s is damaged. It is ignored, and written anew.", path)
            return None
        return content

    def _write(self, path: Path, content: bytes) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(path, hashlib.sha256(content).digest() + content)
            if self._num_written % _WRITES_PER_CHECK == 0:
                self._remove_oldest()
            self._num_written += 1
        except OSError as e:
            self._warn(f"The start cache {self.folder} can't be written: {e}.")

    def _remove_oldest(self) -> None:
        files = sorted(self._files())
        excess = sum(size for _, size, _ in files) - self._max_bytes
        for _, size, path in files:
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size

    def _files(self) -> list[tuple[int, int, Path]]:
        """Time of writing in ns, size in bytes and path of each file, also of beginnings that a killed process left."""
        found = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with suppress(FileNotFoundError):  # another process removed it
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        return found

    def _warn(self, message: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            _LOGGER.warning("%s Starts are settled anew.", message)


def start_key(model_digest: str, built: Moment, settle_steps: int, init_state: NDArray[np.float64]) -> str:
    """SHA-256 in hex of all that a settled start follows from.

    Args:
        model_digest: `CompiledModel.digest`: the task's XML and what it was compiled to, fixtures' places included.
        built: The simulator's first moment, with the controller's configuration.
        settle_steps: Control steps without motion.
        init_state: float64 (1 + nq + nv,), the official initial state.
    """
    whole = hashlib.sha256(f"{_arithmetic()} {model_digest} {built.digest()} {settle_steps} ".encode())
    whole.update(init_state.tobytes())
    return whole.hexdigest()


@functools.cache
def _arithmetic() -> str:
    """Digest of what computes: this package's stepping code, the packages below it, the processor."""
    whole = hashlib.sha256(f"vlac-gym {__version__}\n".encode())
    for name in _STEPPING_CODE:
        with suppress(OSError):  # an installation without sources has its version
            whole.update(Path(__file__).with_name(name).read_bytes())
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            whole.update(f"{name} {importlib.metadata.version(name)}\n".encode())
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    chosen = {name: os.environ.get(name) for name in _ARITHMETIC_VARIABLES}
    whole.update(f"{blas} {_processor()} {chosen}".encode())
    return whole.hexdigest()


def _processor() -> str:
    """The kind of processor: libraries choose their instructions by it, and round differently on another."""
    lines = [platform.machine(), platform.processor()]
    with suppress(OSError):
        first, _, _ = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")
        lines += [line for line in first.splitlines() if line.partition(":")[0].strip() in _PROCESSOR]
    return "\n".join(lines)
