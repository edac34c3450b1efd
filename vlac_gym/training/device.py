"""The device that a network is trained on: `pick_device`."""

__all__ = ["pick_device"]

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs

with needs("Training", "vlac"):
    import torch


def pick_device(name: str | None) -> torch.device:
    """The device of that name; for None the first GPU if there is one, else the CPU.

    Raises:
        ConfigError: PyTorch can't use it.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as e:  # torch says it differently with and without CUDA
        raise ConfigError(
            f"Expected a device that torch can use, got {name!r}: {str(e).splitlines()[0]}"
        ) from e
    return device
