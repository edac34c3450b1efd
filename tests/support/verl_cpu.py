"""verl 0.9.1 on a machine without an accelerator: a device, and an inference engine, `rollout.name=transformers`.

A plugin for `VERL_USE_EXTERNAL_MODULES`; everything here goes through verl's own registries but `_name_backends`.
verl's engines (vLLM, SGLang, TensorRT-LLM) want a GPU, so a small policy is sampled by transformers in a Ray actor.
`VERL_ENGINE_DEVICE=cuda` has to be set beside it: verl's table of training engines has FSDP for no other device.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, set_platform

from verl_env_adapter.common.import_hooks import after_import

ENGINE = "transformers"
"""Value of `actor_rollout_ref.rollout.name`."""


class CPUPlatform(PlatformBase):
    """The CPU as verl's device. Its workers still take a Ray resource `GPU`, of which Ray may be told any number."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = torch.cpu

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:  # verl passes it to `Tensor.to`, where a number means a GPU.
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


def install() -> None:
    """Prepares this process and verl's modules, which are not loaded for it."""
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        setattr(torch.cpu, name, lambda device=None: 0)  # verl reports them as metrics.
    torch.cpu.empty_cache = lambda: None
    set_platform(CPUPlatform())
    after_import("verl.utils.distributed", _name_backends)
    after_import("verl.workers.rollout.base", _add_rollout)
    after_import("verl.workers.rollout.replica", _add_replica)


def _name_backends(module: Any) -> None:
    # verl asks torch for "cpu:gloo,<device>:<backend>", and torch refuses one device twice.
    module.get_device_name = lambda: "cuda"


def _add_rollout(module: Any) -> None:
    module._ROLLOUT_REGISTRY[ENGINE, "async"] = "verl_transformers.WeightSender"


def _add_replica(module: Any) -> None:
    module.RolloutReplicaRegistry.register(ENGINE, _load_replica)


def _load_replica() -> type:
    from verl_transformers import TransformersReplica

    return TransformersReplica


install()
