"""Recorded forwards for small batches, which the host's launches would otherwise slow: `GraphedEncoder`,
`GraphedAnswers`, both filled through a `GraphRecorder`.

A CUDA graph replays a fixed sequence of kernels on fixed buffers. Inputs are copied in and padded up to the
next recorded size; where no recorded size fits, the caller runs the model as usual.
"""

__all__ = ["AnswerShape", "GraphRecorder", "GraphedAnswers", "GraphedEncoder", "PromptShape", "answer_shapes"]

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from vlac_gym.critic.engines.answering import Pick, TokenPicker
from vlac_gym.critic.engines.base import AnswerKind
from vlac_gym.critic.engines.generation import generate_tokens
from vlac_gym.critic.engines.text_decoder import TextDecoder
from vlac_gym.extras import needs

with needs("The transformers engine", "vlac"):
    import torch

Result = TypeVar("Result")
_WARM_UP_RUNS = 3
"""Before recording, so that kernels are chosen, compiled and have their workspaces."""

_LENGTH_STEP = 16
"""Prompt lengths are recorded in multiples of this many tokens."""

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
        self, function: Callable[..., Result], inputs: Sequence[torch.Tensor], pool: Any
    ) -> "_Recording[Result]":
        """Records `function(*inputs)`; `inputs` become the recording's buffers, tensors in its result the output's."""
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


class _Recording(Generic[Result]):
    """One function recorded on one set of inputs."""

    def __init__(self, graph: torch.cuda.CUDAGraph, inputs: Sequence[torch.Tensor], output: Result) -> None:
        self._graph = graph
        self._inputs = inputs
        self._output = output

    def replay(self, *values: torch.Tensor) -> Result:
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
        self._recordings: dict[int, _Recording[torch.Tensor]] = {}

    def record(self, recorder: GraphRecorder, sizes: Sequence[int], example: torch.Tensor, pool: Any) -> None:
        """Records batches of the given sizes of pictures shaped like `example` (1, 3, side, side)."""
        for size in sorted(sizes, reverse=True):
            inputs = [example.repeat(size, 1, 1, 1)]
            self._recordings[size] = recorder.record(self._encode, inputs, pool)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        size = min((size for size in self._recordings if size >= len(pixels)), default=None)
        if size is None:
            return self._encode(pixels)
        return self._recordings[size].replay(pixels)[: len(pixels)]


class PromptShape(NamedTuple):
    """One prompt.

    Attributes:
        answer: Kind of answer.
        steps: Most tokens of the reply.
        length: Tokens of the prompt.
    """

    answer: AnswerKind
    steps: int
    length: int


class AnswerShape(NamedTuple):
    """What a recording answers.

    Attributes:
        answer: Kind of answer.
        steps: Tokens of each reply.
        rows: Prompts.
        length: Tokens of each prompt.
    """

    answer: AnswerKind
    steps: int
    rows: int
    length: int


def answer_shapes(
    prompts: Sequence[PromptShape], batch_sizes: Sequence[int], max_tokens: int
) -> list[AnswerShape]:
    """What to record for prompts like these.

    Args:
        prompts: At least the shortest and the longest of each kind.
        batch_sizes: Counts of prompts.
        max_tokens: Most tokens in a batch.

    Returns:
        Of each kind of reply every length from the shortest prompt's to the longest one's, in steps of 16, in every
        size.
    """
    shapes: list[AnswerShape] = []
    for answer, steps in dict.fromkeys(prompt[:2] for prompt in prompts):
        lengths = [-(-p.length // _LENGTH_STEP) for p in prompts if (p.answer, p.steps) == (answer, steps)]
        for multiple in range(min(lengths), max(lengths) + 1):
            shapes += [AnswerShape(answer, steps, size, multiple * _LENGTH_STEP) for size in batch_sizes]
    return [shape for shape in shapes if shape.rows * shape.length <= max_tokens]


class GraphedAnswers:
    """Whole numeric replies to few prompts, each kind, count and length of prompts recorded as one graph.

    Args:
        decoder: The language model.
        picker: Chooses reply tokens.
    """

    def __init__(self, decoder: TextDecoder, picker: TokenPicker) -> None:
        self._decoder = decoder
        self._picker = picker
        self._recordings: dict[AnswerShape, _Recording[list[Pick]]] = {}

    def record(
        self, recorder: GraphRecorder, shapes: Sequence[AnswerShape], example: torch.Tensor, pool: Any
    ) -> None:
        """Records replies to embeddings shaped like `example` (1, 1, width).

        The largest first: the smaller ones then use the same memory.
        """
        for shape in sorted(shapes, key=lambda shape: -shape.rows * shape.length):
            last = torch.full((shape.rows,), shape.length - 1, device=example.device)
            visible = torch.ones(shape.rows, shape.length, dtype=torch.bool, device=example.device)
            inputs = [example.repeat(shape.rows, shape.length, 1), last, visible]
            self._recordings[shape] = recorder.record(self._answering(shape), inputs, pool)

    def fitting(self, wanted: AnswerShape) -> AnswerShape | None:
        """The smallest recorded shape that holds such a batch, `MAX_EXTRA_TOKENS` longer at most, or None."""
        return min(
            (
                shape
                for shape in self._recordings
                if shape[:2] == wanted[:2]
                and shape.rows >= wanted.rows
                and 0 <= shape.length - wanted.length <= MAX_EXTRA_TOKENS
            ),
            default=None,
        )

    def __call__(
        self, shape: AnswerShape, embeddings: torch.Tensor, last: torch.Tensor, visible: torch.Tensor
    ) -> list[Pick]:
        """The reply tokens to embeddings (B, shape's length, width), one `Pick` per step; B up to the shape's rows.

        The next replay overwrites them: what is sent to the host before is safe.
        """
        picks = self._recordings[shape].replay(embeddings, last, visible)
        return [pick.first_rows(len(embeddings)) for pick in picks]

    def _answering(self, shape: AnswerShape) -> Callable[..., list[Pick]]:
        def answer(embeddings: torch.Tensor, last: torch.Tensor, visible: torch.Tensor) -> list[Pick]:
            prefilled = self._decoder.prefill(
                embeddings, last, visible=visible, prefix=None, keep=shape.steps > 1
            )
            return generate_tokens(
                self._decoder,
                self._picker,
                shape.answer,
                prefilled,
                last=last,
                visible=visible,
                prefix=None,
                steps=shape.steps,
            )

        return answer
