"""A CPU in the place of CUDA, for a trainer that calls its device "cuda" by name: `cuda_on_cpu`.

`autocast` turns itself off, so that everything is computed in the parameters' own precision.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.distributed import device_mesh
from torch.distributed.fsdp import _init_utils
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")


class _OnCpu(TorchFunctionMode):
    """Reads "cuda" as "cpu" in every call of a function of torch."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.cuda:
            return args[0]
        moved = {name: _on_cpu(value) for name, value in (kwargs or {}).items()}
        return function(*map(_on_cpu, args), **moved)


def _on_cpu(value: Any) -> Any:
    is_cuda = value == "cuda" if isinstance(value, str) else getattr(value, "type", None) == "cuda"
    return CPU if is_cuda else value


@contextmanager
def cuda_on_cpu() -> Iterator[None]:
    """Has this thread's calls for a CUDA device go to the CPU."""
    meshes = device_mesh.init_device_mesh
    with ExitStack() as stack:
        stack.enter_context(patch.object(torch.cuda, "current_device", lambda: CPU))
        stack.enter_context(patch.object(torch.cuda, "synchronize", lambda: None))
        stack.enter_context(
            patch.object(device_mesh, "init_device_mesh", lambda kind, **given: meshes("cpu", **given))
        )
        # FSDP would not send a CPU's weights from rank 0 to the others, of which there are none.
        stack.enter_context(
            patch.object(_init_utils, "_check_module_states_for_sync_module_states", lambda states: None)
        )
        stack.enter_context(_OnCpu())
        yield
