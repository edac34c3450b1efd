"""Recorded forwards for small batches, which the host's launches would otherwise slow: `GraphedEncoder`,
`GraphedChecks`, both filled through a `GraphRecorder`.

A CUDA graph replays a fixed sequence of kernels on fixed buffers. Inputs are copied in and padded up to the
next recorded size; where no recorded size fits, the caller runs the model as usual.
"""

__all__ = ["GraphRecorder", "GraphedChecks", "GraphedEncoder"]

from collections.abc import Callable, Sequence
from typing import Any

from vlac_gym.critic.engines.text_decoder import TextDecoder
from vlac_gym.extras import needs

with needs("The transformers engine", "vlac"):
    import torch

_WARM_UP_RUNS = 3
"""Before recording, so that kernels are chosen, compiled and have their workspaces."""

MAX_EXTRA_TOKENS = 64
"""Most padding that a replay may add to a prompt; beyond it, a plain run is faster."""


class GraphRecorder:
    """Records functions on one device, one after the other, all on the same side stream.

    cuBLAS keeps a workspace for each stream for as long as the process lives (32 MiB on Hopper GPUs, see "cuBLAS
    workspaces" in PyTorch's notes on CUDA), so a stream for each recording would cost up to a gigabyte that
    not even sleep gives back.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def new_pool(self) -> Any:
        """Memory for recordings that are never replayed at the same time."""
        return torch.cuda.graph_pool_handle()

    def record(
        self, function: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], pool: Any
    ) -> "_Recording":
        """Records `function(*inputs)`; `inputs` become the recording's buffers."""
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP_RUNS):
                    function(*inputs)
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=self._stream):
                output = function(*inputs)
        return _Recording(graph, inputs, output)


class _Recording:
    """One function recorded on one set of inputs."""

    def __init__(
        self, graph: torch.cuda.CUDAGraph, inputs: Sequence[torch.Tensor], output: torch.Tensor
    ) -> None:
        self._graph = graph
        self._inputs = inputs
        self._output = output

    def replay(self, *values: torch.Tensor) -> torch.Tensor:
        """Runs on the given values, each padded behind; the result is overwritten by the next replay."""
        for buffer, value in zip(self._inputs, values):
            buffer[tuple(slice(size) for size in value.shape)].copy_(value)
        self._graph.replay()
        return self._output


class GraphedEncoder:
    """An encoder of pictures with recordings for small batches; larger ones go straight through.

    Args:
        encode: (N, 3, side, side) to (N, tokens, width).
    """

    def __init__(self, encode: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._encode = encode
        self._recordings: dict[int, _Recording] = {}

    def record(self, recorder: GraphRecorder, sizes: Sequence[int], example: torch.Tensor, pool: Any) -> None:
        """Records batches of the given sizes of pictures shaped like `example` (1, 3, side, side)."""
        for size in sizes:
            inputs = [example.repeat(size, 1, 1, 1)]
            self._recordings[size] = recorder.record(self._encode, inputs, pool)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        size = min((size for size in self._recordings if size >= len(pixels)), default=None)
        if size is None:
            return self._encode(pixels)
        return self._recordings[size].replay(pixels)[: len(pixels)]


class GraphedChecks:
    """Prompts answered by one forward, with recordings for few rows.

    Args:
        decoder: The language model.
    """

    def __init__(self, decoder: TextDecoder) -> None:
        self._decoder = decoder
        self._recordings: dict[tuple[int, int], _Recording] = {}

    def record(
        self,
        recorder: GraphRecorder,
        sizes: Sequence[int],
        lengths: Sequence[int],
        example: torch.Tensor,
        pool: Any,
    ) -> None:
        """Records batches of each size and length of embeddings shaped like `example` (1, 1, width)."""
        for size in sizes:
            for length in lengths:
                last = torch.full((size,), length - 1, device=example.device)
                visible = torch.ones(size, length, dtype=torch.bool, device=example.device)
                inputs = [example.repeat(size, length, 1), last, visible]
                self._recordings[size, length] = recorder.record(self._run, inputs, pool)

    def fitting(self, rows: int, length: int) -> tuple[int, int] | None:
        """The smallest recorded (rows, length) that holds a batch without much padding, or None."""
        return min(
            (key for key in self._recordings if key[0] >= rows and 0 <= key[1] - length <= MAX_EXTRA_TOKENS),
            default=None,
        )

    def __call__(
        self, key: tuple[int, int], embeddings: torch.Tensor, last: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        """float32 logits (B, vocabulary) of embeddings (B, key's length, width); B up to the key's rows."""
        return self._recordings[key].replay(embeddings, last, visible)[: len(embeddings)].clone()

    def _run(self, embeddings: torch.Tensor, last: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        return self._decoder.prefill(embeddings, last, visible=visible, prefix=None, keep=False)[0]
