"""RLinf's actor and rollout workers on a machine without an accelerator: `install`.

RLinf 0.3.0 places workers on CPUs, but asks `Worker.torch_platform` and `Worker.torch_device_type` for their device,
and both are None there. PyTorch has a CPU twin of ``torch.cuda``; `install` names it, and adds what it lacks. For tests
and small policies: ``VLAC_GYM_RLINF_CPU=1`` lets `verl_env_adapter.rlinf.plugin.register` call it.
"""

__all__ = ["CPUPlatform", "install"]

from typing import Any

from verl_env_adapter.common.sources import RLINF
from vlac_gym.extras import needs

with needs("The RLinf adapter", get=RLINF):
    import torch


class _Stream(torch.cpu.Stream):
    """The one stream of a CPU, which is never behind."""

    def synchronize(self) -> None:
        """Returns at once."""


class CPUPlatform:
    """``torch.cpu`` with the functions of ``torch.cuda`` that RLinf calls and ``torch.cpu`` lacks."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    @staticmethod
    def current_stream(device: Any = None) -> _Stream:
        """The one stream."""
        return _Stream()

    @staticmethod
    def empty_cache() -> None:
        """Nothing is cached."""

    @staticmethod
    def ipc_collect() -> None:
        """Nothing is shared."""

    @staticmethod
    def get_rng_state() -> torch.Tensor:
        """The CPU's generator, uint8."""
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor) -> None:
        """Sets the CPU's generator."""
        torch.set_rng_state(state)


class _Always:
    """A class attribute that instances can't replace: RLinf's `Worker` sets its own to None before it calls us."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self._value

    def __set__(self, instance: Any, value: Any) -> None:
        pass


def install() -> bool:
    """Gives RLinf's workers of this process the CPU as their device; safe to call twice.

    Returns:
        False where there is an accelerator, and nothing was changed.
    """
    with needs("The RLinf adapter", get=RLINF):
        from rlinf.scheduler import Worker
        from rlinf.scheduler.hardware.accelerators.accelerator import AcceleratorType, AcceleratorUtil
    if AcceleratorUtil.get_accelerator_type() != AcceleratorType.NO_ACCEL:
        return False
    platform = CPUPlatform()
    AcceleratorUtil.get_torch_platform = staticmethod(lambda kind: platform)
    AcceleratorUtil.get_device_type = staticmethod(lambda kind: "cpu")
    Worker.torch_platform, Worker.torch_device_type = _Always(platform), _Always("cpu")
    return True
