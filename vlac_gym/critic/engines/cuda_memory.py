"""This process's share of the GPU's memory: `limit_cuda_memory`, `cuda_memory_bytes`, and its peak since
`reset_cuda_memory_peak`: `cuda_memory_peak_bytes`.
"""

__all__ = ["cuda_memory_bytes", "cuda_memory_peak_bytes", "limit_cuda_memory", "reset_cuda_memory_peak"]

import sys
from typing import Any

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs


def limit_cuda_memory(fraction: float) -> None:
    """Bounds what torch may allocate in this process to a fraction of each GPU's memory.

    An allocation beyond it fails like one beyond the GPU's memory. The CUDA context itself (about 0.5 GB)
    is not counted by torch.

    Args:
        fraction: Of the whole device's memory, above 0 and at most 1.

    Raises:
        ConfigError: The fraction is out of range, or there is no CUDA device to bound.
        DependencyNotInstalled: torch is missing.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"Expected a GPU memory fraction above 0 and at most 1, got {fraction!r}.")
    with needs("A GPU memory fraction", "vlac"):
        import torch
    if not torch.cuda.is_available():
        raise ConfigError(
            "A GPU memory fraction was given, but torch finds no CUDA device. Leave the option out."
        )
    for device in range(torch.cuda.device_count()):
        torch.cuda.set_per_process_memory_fraction(fraction, device)


def cuda_memory_bytes() -> float:
    """Bytes that torch holds on all GPUs for this process; 0 without torch or CUDA. Imports nothing."""
    torch = _torch_with_cuda()
    if torch is None:
        return 0.0
    return float(sum(torch.cuda.memory_reserved(d) for d in range(torch.cuda.device_count())))


def reset_cuda_memory_peak() -> None:
    """Makes `cuda_memory_peak_bytes` look back no further than now. Imports nothing; without CUDA nothing is done."""
    torch = _torch_with_cuda()
    if torch is not None:
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def cuda_memory_peak_bytes() -> float | None:
    """Most bytes that torch held for this process since `reset_cuda_memory_peak`, added up over all GPUs.

    None if torch has not used CUDA in this process. Like `cuda_memory_bytes` it counts what torch took from the
    driver, its cache of freed blocks included, and not the CUDA context (about 0.5 GB). Imports nothing.
    """
    torch = _torch_with_cuda()
    if torch is None:
        return None
    return float(sum(torch.cuda.max_memory_reserved(d) for d in range(torch.cuda.device_count())))


def _torch_with_cuda() -> Any:
    """The torch module if it is loaded and has started CUDA, else None."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_initialized() else None
