"""Llama-type language model over the weights of a loaded model, with fused projections: `TextDecoder`.

Prompts go through `prefill` in one pass that computes logits for each row's last position only; a prefix
that many prompts share goes through `prefix` once. Rows are padded on the right.
"""

__all__ = ["TextDecoder"]

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast

from vlac_gym.critic.engines.attention import (
    KeysValues,
    attend_one,
    attend_prompt,
    fuse_linears,
    with_prefix,
)
from vlac_gym.extras import needs

with needs("The transformers engine", "vlac"):
    import torch
    from torch import nn
    from torch.nn.functional import pad

_SHORT_PREFIX_SHARE = 2
"""A prefix of up to half the prompts' own length is short: unused queries for it cost less than slow kernels."""


class TextDecoder(nn.Module):
    """Computes what the model's own `LlamaModel` or `Qwen2Model` and its head compute.

    Args:
        model: The `LlamaModel` or `Qwen2Model` whose layers are taken over.
        head: The linear layer from hidden states to logits.
    """

    def __init__(self, model: Any, head: nn.Linear) -> None:
        super().__init__()
        self.embed_tokens = model.embed_tokens
        self.rotary = model.rotary_emb
        self.layers = nn.ModuleList()
        while len(model.layers):  # one by one, so that a layer is never held twice for long
            self.layers.append(_DecoderLayer(model.layers[0]))
            del model.layers[0]
        self.final_norm = model.norm
        self.head = head

    def compile_layers(self) -> None:
        """Fuses each layer's element-wise work with torch.compile; the kernels are built on first use."""
        for layer in self._each_layer():
            layer.compile_parts()

    def prefix(self, embeddings: torch.Tensor) -> list[KeysValues]:
        """Keys and values per layer of one sequence (1, P, width) that later prompts begin with."""
        positions = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
        rotation = self._rotation(embeddings, positions)
        layers = list(self._each_layer())
        hidden = embeddings
        queries, keys, values = layers[0].project(hidden, *rotation)
        kept = [(keys, values.clone())]  # values are a view of all projections, which need not stay alive
        for layer, after in pairwise(layers):
            attended = attend_prompt(queries, keys, values)
            hidden, queries, keys, values = layer.advance(after, hidden, attended, 0, *rotation)
            kept.append((keys, values.clone()))
        return kept

    def prefill(
        self,
        embeddings: torch.Tensor,
        last: torch.Tensor,
        *,
        visible: torch.Tensor | None,
        prefix: list[KeysValues] | None,
        keep: bool,
    ) -> tuple[torch.Tensor, list[KeysValues]]:
        """Runs prompts and returns the logits of what follows each.

        Args:
            embeddings: (B, L, width), padded on the right.
            last: (B,) index of each row's last real position.
            visible: Bool (B, P + L), False at padding; None without padding.
            prefix: Keys and values of P positions before all rows, or None.
            keep: Whether to return keys and values for `step`.

        Returns:
            float32 logits (B, vocabulary), and keys and values per layer (empty unless kept).
        """
        start = prefix[0][0].shape[2] if prefix else 0
        length = embeddings.shape[1]
        positions = torch.arange(start, start + length, device=embeddings.device)[None]
        rotation = self._rotation(embeddings, positions)
        rows = torch.arange(embeddings.shape[0], device=embeddings.device)
        skip = start if 0 < start <= length // _SHORT_PREFIX_SHARE else 0
        short = prefix if prefix and skip else [(None, None)] * len(self.layers)
        layers = list(self._each_layer())
        hidden, kept = embeddings, []
        queries, keys, values = layers[0].project(hidden, *rotation, *short[0])
        for i, layer in enumerate(layers):
            if prefix and not skip:
                keys, values = with_prefix(prefix[i], keys, values)
            if keep:  # clones, because views would keep queries and copies of the prefix alive
                kept.append((keys[:, :, start:].clone(), values[:, :, start:].clone()))
            if i + 1 < len(layers):
                attended = attend_prompt(queries, keys, values)
                hidden, queries, keys, values = layer.advance(
                    layers[i + 1], hidden, attended, skip, *rotation, *short[i + 1]
                )
        # nothing after the last layer needs the other positions
        attended = attend_one(queries[rows, :, last + skip][:, :, None], keys, values, visible)
        hidden = layers[-1].finish(hidden[rows, last][:, None], attended)
        return self._logits(hidden), kept

    def step(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        *,
        visible: torch.Tensor,
        prefix: list[KeysValues] | None,
        kept: list[KeysValues],
    ) -> tuple[torch.Tensor, list[KeysValues]]:
        """Feeds one token per row.

        Args:
            tokens: (B,) token ids.
            positions: (B,) position of each.
            visible: Bool (B, P + S + 1) over prefix, kept positions and the new one.
            prefix: As in `prefill`.
            kept: Keys and values of S positions per row.

        Returns:
            float32 logits (B, vocabulary), and keys and values with the new position.
        """
        hidden = self.embed_tokens(tokens[:, None])
        rotation = self._rotation(hidden, positions[:, None])
        grown = []
        for i, (layer, (old_keys, old_values)) in enumerate(zip(self._each_layer(), kept)):
            queries, keys, values = layer.project(hidden, *rotation)
            own = torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)
            grown.append(own)
            attended = attend_one(queries, *with_prefix(prefix[i] if prefix else None, *own), visible)
            hidden = layer.finish(hidden, attended)
        return self._logits(hidden), grown

    def _each_layer(self) -> "Iterator[_DecoderLayer]":
        return cast("Iterator[_DecoderLayer]", iter(self.layers))

    def _rotation(self, hidden: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = self.rotary(hidden, position_ids=positions)
        return cos[:, None], sin[:, None]

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.final_norm(hidden[:, 0]))
        return logits.float()


class _DecoderLayer(nn.Module):
    def __init__(self, source: Any) -> None:
        super().__init__()
        attention = source.self_attn
        self.head_dim = attention.head_dim
        self.query_width = attention.q_proj.out_features
        self.key_width = attention.k_proj.out_features
        self.query_key_value = fuse_linears([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out = attention.o_proj
        self.gate_up = fuse_linears([source.mlp.gate_proj, source.mlp.up_proj])
        self.down, self.activation = source.mlp.down_proj, source.mlp.act_fn
        self.norm_before, self.norm_after = source.input_layernorm, source.post_attention_layernorm

    def compile_parts(self) -> None:
        for name in ("advance", "project", "finish"):
            setattr(self, name, torch.compile(getattr(self, name), dynamic=True))

    def project(
        self,
        hidden: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        prefix_keys: torch.Tensor | None = None,
        prefix_values: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rotated queries and keys, and values, each (B, heads, L, head width).

        With a prefix of P positions, that prefix stands before keys and values, and P zeros before the queries:
        with as many queries as keys the fastest causal kernels apply.
        """
        widths = (self.query_width, self.key_width, self.key_width)
        parts = self.query_key_value(self.norm_before(hidden)).split(widths, dim=-1)
        queries, keys, values = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in parts)
        queries, keys = _rotate(queries, cos, sin), _rotate(keys, cos, sin)
        if prefix_keys is None or prefix_values is None:
            return queries, keys, values
        keys, values = with_prefix((prefix_keys, prefix_values), keys, values)
        return pad(queries, (0, 0, prefix_keys.shape[2], 0)), keys, values

    def advance(
        self,
        after: "_DecoderLayer",
        hidden: torch.Tensor,
        attended: torch.Tensor,
        skip: int,
        cos: torch.Tensor,
        sin: torch.Tensor,
        prefix_keys: torch.Tensor | None = None,
        prefix_values: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """`finish` of this layer and `project` of the next in one, so that they compile into fewer passes.

        `attended` is (B, heads, skip + L, head width); what belongs to the zeros before the queries is dropped.
        """
        hidden = self.finish(hidden, attended[:, :, skip:].transpose(1, 2).flatten(2))
        return hidden, *after.project(hidden, cos, sin, prefix_keys, prefix_values)

    def finish(self, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """Output projection and feed-forward, with their residuals."""
        hidden = hidden + self.out(attended)
        gate, up = self.gate_up(self.norm_after(hidden)).chunk(2, dim=-1)
        result: torch.Tensor = hidden + self.down(self.activation(gate) * up)
        return result


def _rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding, halves convention (as Llama's `rotate_half` in transformers)."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat([-second, first], dim=-1) * sin
