"""A model's forwards as CUDA graphs, as far as they were recorded: `RecordedForwards`."""

__all__ = ["RecordedForwards"]

from collections.abc import Callable, Sequence

from vlac_gym.critic.engines.answering import TokenPicker
from vlac_gym.critic.engines.cuda_graphs import (
    GraphedAnswers,
    GraphedEncoder,
    GraphRecorder,
    PromptShape,
    answer_shapes,
)
from vlac_gym.critic.engines.transformers_loading import LoadedCheckpoint
from vlac_gym.extras import needs

with needs("The transformers engine", "vlac"):
    import torch


class RecordedForwards:
    """The encoder, and whole numeric replies; until `record` nothing is recorded.

    Args:
        parts: The model.
        picker: Chooses reply tokens.
        device: Where the model runs.
        dtype: Of the model.

    Attributes:
        encode: Pictures (N, 3, side, side) to features (N, tokens, width), from a recording where one fits.
        answers: What can answer a batch of prompts, or None.
    """

    def __init__(
        self, parts: LoadedCheckpoint, picker: TokenPicker, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.encode: Callable[[torch.Tensor], torch.Tensor] = parts.vision
        self.answers: GraphedAnswers | None = None
        self._parts, self._picker = parts, picker
        self._device, self._dtype = device, dtype
        self._recorder: GraphRecorder | None = None

    def record(self, prompts: Sequence[PromptShape], batch_sizes: Sequence[int], max_tokens: int) -> None:
        """Records the encoder, and replies to prompts like these, in batches of these sizes.

        Args:
            prompts: See `answer_shapes`.
            batch_sizes: Counts of pictures or prompts.
            max_tokens: Most tokens in a batch; larger ones are left out.
        """
        if self._recorder is None:
            self._recorder = GraphRecorder(self._device)
        parts, recorder, pool = self._parts, self._recorder, self._recorder.new_pool()
        pixels = self._zeros(1, 3, parts.image_size, parts.image_size)
        encoder = GraphedEncoder(parts.vision)
        encoder.record(recorder, [n for n in batch_sizes if n * parts.patches <= max_tokens], pixels, pool)
        embedding = self._zeros(1, 1, parts.text.embed_tokens.embedding_dim)
        answers = GraphedAnswers(parts.text, self._picker)
        answers.record(recorder, answer_shapes(prompts, batch_sizes, max_tokens), embedding, pool)
        self.encode, self.answers = encoder, answers

    def forget(self) -> None:
        """Drops the recordings."""
        self.encode, self.answers = self._parts.vision, None

    def _zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(*shape, device=self._device, dtype=self._dtype)
