"""What the transformers engine says of itself: `EngineStatistics`, `WarmUpReport`."""

__all__ = ["EngineStatistics", "WarmUpReport"]

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineStatistics:
    """Counts since construction, and memory in bytes.

    Attributes:
        requests: Requests answered.
        frames_encoded: Frames that went through the vision encoder.
        frames_from_cache: Frames whose features were at hand.
        prefixes_computed: Shared prefixes computed.
        prefixes_from_cache: Batches whose prefix was at hand.
        prompt_tokens: Prompt tokens computed, shared ones once, padding excluded.
        padding_tokens: Padding computed.
        peak_memory: Largest device memory held by tensors; 0 on the CPU.
    """

    requests: int
    frames_encoded: int
    frames_from_cache: int
    prefixes_computed: int
    prefixes_from_cache: int
    prompt_tokens: int
    padding_tokens: int
    peak_memory: int


@dataclass(frozen=True)
class WarmUpReport:
    """What `TransformersEngine.warm_up` did.

    Attributes:
        seconds: How long it took.
        is_compiled: Whether kernels were compiled.
        batch_sizes: Batch sizes that are replayed as CUDA graphs, as far as they fit into `max_batch_tokens`.
    """

    seconds: float
    is_compiled: bool
    batch_sizes: tuple[int, ...]
