"""Divides a memory bound among weights, caches and work: `MemoryPlan`, `plan_memory`."""

__all__ = ["RUNTIME_BYTES", "MemoryPlan", "plan_memory"]

from dataclasses import dataclass

from vlac_gym.errors import ConfigError

_GB = 1e9
RUNTIME_BYTES = 0.7e9
"""CUDA context, library workspaces and the allocator's slack; 0.6 GB seen on an H200."""
_SMALLEST_BATCH_TOKENS = 2048
"""Room for one prompt of several pictures; below it, no useful work is possible."""


@dataclass(frozen=True)
class MemoryPlan:
    """How memory is used, in bytes unless the name says otherwise."""

    weights: int
    vision_cache: int
    prefix_cache: int
    max_batch_tokens: int


def plan_memory(
    *,
    weights: int,
    bytes_per_token: int,
    vision_cache: int,
    prefix_cache: int,
    max_batch_tokens: int,
    max_gpu_memory_gb: float | None,
) -> MemoryPlan:
    """Shrinks batches, then caches, until everything fits the bound.

    Args:
        weights: Bytes of all weights as they will be held.
        bytes_per_token: Working memory of one token in a batch.
        vision_cache: Bytes wanted for picture features.
        prefix_cache: Bytes wanted for keys and values of shared prefixes.
        max_batch_tokens: Tokens wanted per batch.
        max_gpu_memory_gb: The bound in 10^9 bytes; None plans nothing.

    Raises:
        ConfigError: Weights and the smallest useful batch are larger than the bound.
    """
    if max_gpu_memory_gb is None:
        return MemoryPlan(weights, vision_cache, prefix_cache, max_batch_tokens)
    free = max_gpu_memory_gb * _GB - RUNTIME_BYTES - weights
    smallest = min(_SMALLEST_BATCH_TOKENS, max_batch_tokens) * bytes_per_token
    if free < smallest:
        needed = (weights + RUNTIME_BYTES + smallest) / _GB
        raise ConfigError(
            f"Expected max_gpu_memory_gb of at least {needed:.1f} for this checkpoint "
            f"({weights / _GB:.1f} GB of weights), got {max_gpu_memory_gb}."
        )
    work = max(smallest, min(max_batch_tokens * bytes_per_token, free / 2))
    caches = min(1.0, (free - work) / max(vision_cache + prefix_cache, 1))
    return MemoryPlan(
        weights=weights,
        vision_cache=int(vision_cache * caches),
        prefix_cache=int(prefix_cache * caches),
        max_batch_tokens=min(max_batch_tokens, int(work // bytes_per_token)),
    )
