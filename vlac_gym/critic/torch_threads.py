"""How many CPU threads PyTorch uses beside a simulator that renders on the same cores: `limit_torch_threads`,
`spare_threads`."""

__all__ = ["limit_torch_threads", "spare_threads"]

import os
import sys
from collections.abc import Mapping
from typing import Any

from vlac_gym.errors import ConfigError
from vlac_gym.types import CriticInfo

_requests: list[int] = []
"""What `limit_torch_threads` was asked for in this process, which later calls without a request respect."""


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
    if requested is not None:
        _requests.append(requested)
    torch = sys.modules.get("torch")
    chosen_by_user = bool(_requests) or "OMP_NUM_THREADS" in (os.environ if environ is None else environ)
    if torch is None or (requested is None and (chosen_by_user or not renders_in_software)):
        return None
    count = 1 if requested is None else requested
    torch.set_num_threads(count)
    return count


def spare_threads(info: CriticInfo, *, renders_in_software: bool) -> None:
    """`limit_torch_threads` without a request, for a critic whose model runs on this process's CPU; else nothing.

    Of an ensemble, one such member is enough.

    Args:
        info: What the critic says about itself.
        renders_in_software: Whether this process, or workers on its cores, render on the CPU.
    """
    if _computes_here(info.device, info.details or {}):
        limit_torch_threads(None, renders_in_software=renders_in_software)


def _computes_here(device: str, details: Mapping[str, Any]) -> bool:
    if "urls" in details:
        return False
    if "members" in details:  # an ensemble's
        return any(_computes_here(own["device"], own["details"] or {}) for own in details["members"])
    return device == "cpu" and "weights_digest" in details
