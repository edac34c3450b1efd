"""Runs one planned batch through the model: `BatchRunner`."""

__all__ = ["BatchRunner"]

from collections.abc import Sequence

import numpy as np

from vlac_gym.critic.engines.answering import Pick, TokenPicker
from vlac_gym.critic.engines.attention import KeysValues
from vlac_gym.critic.engines.byte_bounded_cache import ByteBoundedCache
from vlac_gym.critic.engines.cuda_graphs import AnswerShape
from vlac_gym.critic.engines.generation import generate_tokens
from vlac_gym.critic.engines.recorded_forwards import RecordedForwards
from vlac_gym.critic.engines.request_plan import Batch, Item, PrefixKey
from vlac_gym.critic.engines.text_decoder import TextDecoder
from vlac_gym.extras import needs

with needs("The transformers engine", "vlac"):
    import torch

Features = dict[bytes, torch.Tensor]


class BatchRunner:
    """Computes the reply tokens of a batch from its frames' features.

    Args:
        decoder: The language model.
        picker: Chooses reply tokens.
        device: Where all of these live.
        prefix_cache_bytes: Bound of kept keys and values of shared prefixes.
        stops: Ids of the tokens that end a text.
        recorded: Its recorded answers are taken where one fits.
    """

    def __init__(
        self,
        decoder: TextDecoder,
        picker: TokenPicker,
        *,
        device: torch.device,
        prefix_cache_bytes: int,
        stops: torch.Tensor,
        recorded: RecordedForwards,
    ) -> None:
        self.prefixes: ByteBoundedCache[PrefixKey, list[KeysValues]] = ByteBoundedCache(prefix_cache_bytes)
        self.prefixes_computed = 0
        self.prefixes_from_cache = 0
        self.prompt_tokens = 0
        self.padding_tokens = 0
        self._recorded = recorded
        self._decoder = decoder
        self._picker = picker
        self._device = device
        self._stops = stops

    def run(self, batch: Batch, features: Features) -> list[Pick]:
        """Prefills all prompts and generates step by step; nothing waits for the device but long texts."""
        if (picks := self._replay(batch, features)) is not None:
            return picks
        prefix = self._prefix(batch.items[0], batch.prefix_length, features) if batch.prefix_length else None
        start = batch.prefix_length
        lengths = [len(item.prompt.ids) - start for item in batch.items]
        visible = self._visible(start, lengths)
        last = self._to_device(np.array(lengths) - 1)
        prefilled = self._decoder.prefill(
            self._embed(batch.items, start, max(lengths), features),
            last,
            visible=None if min(lengths) == max(lengths) else visible,
            prefix=prefix,
            keep=batch.max_steps > 1,
        )
        self.prompt_tokens += sum(lengths)
        self.padding_tokens += max(lengths) * len(lengths) - sum(lengths)
        return generate_tokens(
            self._decoder,
            self._picker,
            batch.answer,
            prefilled,
            last=last,
            visible=visible,
            prefix=prefix,
            steps=batch.max_steps,
            stops=self._stops if batch.answer == "text" else None,
        )

    def _replay(self, batch: Batch, features: Features) -> list[Pick] | None:
        """The reply tokens from a recorded run over the whole prompts, or None if none fits."""
        answers = self._recorded.answers
        if answers is None:
            return None
        lengths = [len(item.prompt.ids) for item in batch.items]
        shape = answers.fitting(AnswerShape(batch.answer, batch.max_steps, len(lengths), max(lengths)))
        if shape is None:
            return None
        last = self._to_device(np.array(lengths) - 1)
        visible = self._to_device(np.arange(shape.length)[None] < np.array(lengths)[:, None])
        self.prompt_tokens += sum(lengths)
        self.padding_tokens += shape.rows * shape.length - sum(lengths)
        return answers(shape, self._embed(batch.items, 0, shape.length, features), last, visible)

    def forget(self) -> None:
        """Drops kept prefixes."""
        self.prefixes.clear()

    def _prefix(self, item: Item, length: int, features: Features) -> list[KeysValues]:
        kept = self.prefixes.get(item.prefix_key)
        if kept is not None:
            self.prefixes_from_cache += 1
            return kept
        kept = self._decoder.prefix(self._embed([item], 0, length, features))
        self.prefixes_computed += 1
        self.prompt_tokens += length
        size = sum(part.numel() * part.element_size() for pair in kept for part in pair)
        self.prefixes.put(item.prefix_key, kept, size)
        return kept

    def _embed(self, items: Sequence[Item], start: int, length: int, features: Features) -> torch.Tensor:
        """Embeddings (B, length, width) of the positions from `start` on, features at image positions."""
        ids = np.zeros((len(items), length), dtype=np.int64)
        rows: list[torch.Tensor] = []
        places: list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]] = []
        for i, item in enumerate(items):
            own = item.prompt.ids[start : start + length]
            ids[i, : len(own)] = own
            for begin, digest in zip(item.prompt.image_starts, item.digests):
                if start <= begin < start + length:
                    places.append(i * length + begin - start + np.arange(item.prompt.image_tokens))
                    rows.append(features[digest])
        embeddings: torch.Tensor = self._decoder.embed_tokens(self._to_device(ids))
        if rows:
            flat = embeddings.view(-1, embeddings.shape[-1])
            flat.index_copy_(0, self._to_device(np.concatenate(places)), torch.cat(rows).to(flat.dtype))
        return embeddings

    def _visible(self, start: int, lengths: Sequence[int]) -> torch.Tensor:
        """Bool (B, start + longest), False at padding."""
        columns = np.arange(start + max(lengths))
        return self._to_device(columns[None] < np.array(lengths)[:, None] + start)

    def _to_device(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)
