"""This process's share of the GPU's memory: `limit_cuda_memory`, `cuda_memory_bytes`."""

__all__ = ["cuda_memory_bytes", "limit_cuda_memory"]

import sys

from vlac_gym.errors import ConfigError, DependencyNotInstalled


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
    try:
        import torch
    except ImportError as e:
        raise DependencyNotInstalled(
            'A GPU memory fraction needs torch. Run: pip install "vlac-gym[vlac]"'
        ) from e
    if not torch.cuda.is_available():
        raise ConfigError(
            "A GPU memory fraction was given, but torch finds no CUDA device. Leave the option out."
        )
    for device in range(torch.cuda.device_count()):
        torch.cuda.set_per_process_memory_fraction(fraction, device)


def cuda_memory_bytes() -> float:
    """Bytes that torch holds on all GPUs for this process; 0 without torch or CUDA. Imports nothing."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0.0
    return float(sum(torch.cuda.memory_reserved(d) for d in range(torch.cuda.device_count())))
