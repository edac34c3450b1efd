"""How many CPU threads PyTorch uses beside a simulator that renders on the same cores: `limit_torch_threads`."""

__all__ = ["limit_torch_threads"]

import os
import sys
from collections.abc import Mapping

from vlac_gym.errors import ConfigError


def limit_torch_threads(
    requested: int | None, *, renders_in_software: bool, environ: Mapping[str, str] | None = None
) -> int | None:
    """Sets the threads of a PyTorch that some critic has imported; does nothing where none was.

    PyTorch's threads spin while they wait for one another, and software rendering wants the same cores: a check of
    nano beside it took 604 ms with two threads, 67 ms with one. So one is used there unless somebody chose.

    Args:
        requested: Number of threads, 1 or more; None to decide by the rest.
        renders_in_software: Whether this process renders on the CPU.
        environ: Where `OMP_NUM_THREADS` is read, the user's choice for PyTorch; `os.environ` by default.

    Returns:
        The number that was set, or None if PyTorch was left as it is.

    Raises:
        ConfigError: `requested` is below 1.
    """
    if requested is not None and requested < 1:
        raise ConfigError(f"Expected 1 or more threads for PyTorch, got {requested}.")
    torch = sys.modules.get("torch")
    chosen_by_user = "OMP_NUM_THREADS" in (os.environ if environ is None else environ)
    if torch is None or (requested is None and (chosen_by_user or not renders_in_software)):
        return None
    count = 1 if requested is None else requested
    torch.set_num_threads(count)
    return count
