"""InternViT and projector over the weights of a loaded model, with fused projections: `VisionEncoder`."""

__all__ = ["VisionEncoder"]

from itertools import pairwise
from typing import Any, cast

from vlac_gym.critic.engines.attention import fuse_linears
from vlac_gym.extras import needs

with needs("The transformers engine", "vlac"):
    import torch
    from torch import nn
    from torch.nn.functional import linear, scaled_dot_product_attention

Heads = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Queries, keys and values, each (N, heads, positions, head width)."""


class VisionEncoder(nn.Module):
    """Pictures to language-model features; equal to the model's own `get_image_features`.

    Args:
        model: The `InternVLModel` whose vision tower and projector are taken over.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        tower = model.vision_tower
        self.embeddings = _PatchEmbeddings(tower.embeddings)
        self.layers = nn.ModuleList()
        while len(tower.encoder.layer):  # one by one, so that a layer is never held twice for long
            self.layers.append(_VisionLayer(tower.encoder.layer[0]))
            del tower.encoder.layer[0]
        self.final_norm = tower.layernorm
        self.projector = model.multi_modal_projector
        self._shuffle = model.pixel_shuffle
        self._downsample_ratio = model.config.downsample_ratio

    def compile_layers(self) -> None:
        """Fuses each layer's element-wise work with torch.compile; the kernels are built on first use."""
        for layer in self.layers:
            cast(_VisionLayer, layer).compile_parts()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encodes (N, 3, side, side) into (N, image tokens, text width)."""
        hidden = self.embeddings(pixels)
        layers = [cast(_VisionLayer, layer) for layer in self.layers]
        heads = layers[0].project(hidden)
        for layer, after in pairwise(layers):
            hidden, normed = layer.mix(hidden, layer.attend(*heads))
            hidden, *parts = layer.advance(after, hidden, layer.expand(normed))
            heads = (parts[0], parts[1], parts[2])
        hidden, normed = layers[-1].mix(hidden, layers[-1].attend(*heads))
        hidden = layers[-1].contract(hidden, layers[-1].expand(normed))
        patches = self.final_norm(hidden)[:, 1:]
        side = int(patches.shape[1] ** 0.5)
        grid = patches.reshape(patches.shape[0], side, side, -1)
        shuffled = self._shuffle(grid, scale_factor=self._downsample_ratio)
        features: torch.Tensor = self.projector(shuffled.flatten(1, 2))
        return features


class _PatchEmbeddings(nn.Module):
    """Patches as rows of one matrix product: many times faster than the strided convolution on GPUs."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        convolution = source.patch_embeddings.projection
        self.patch_size = convolution.kernel_size[0]
        self.weight = nn.Parameter(convolution.weight.flatten(1), requires_grad=False)
        self.bias = convolution.bias
        self.class_token, self.positions = source.cls_token, source.position_embeddings

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        size = self.patch_size
        count, channels, height, width = pixels.shape
        grid = pixels.view(count, channels, height // size, size, width // size, size)
        patches = linear(grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2), self.weight, self.bias)
        hidden = torch.cat([self.class_token.expand(len(pixels), -1, -1), patches], dim=1)
        return hidden if self.positions is None else hidden + self.positions


class _VisionLayer(nn.Module):
    def __init__(self, source: Any) -> None:
        super().__init__()
        attention = source.attention
        self.heads, self.scale = attention.num_heads, attention.scale
        self.norm_before, self.norm_after = source.layernorm_before, source.layernorm_after
        self.query_key_value = fuse_linears([attention.q_proj, attention.k_proj, attention.v_proj])
        self.query_norm, self.key_norm = attention.q_norm, attention.k_norm
        self.out = attention.projection_layer
        self.attention_scale, self.mlp_scale = source.lambda_1, source.lambda_2
        self.mlp = source.mlp
        self.is_gelu = source.mlp.config.hidden_act == "gelu"

    def compile_parts(self) -> None:
        for name in ("project", "mix", "advance", "contract"):
            setattr(self, name, torch.compile(getattr(self, name), dynamic=True))

    def project(self, hidden: torch.Tensor) -> Heads:
        queries, keys, values = self.query_key_value(self.norm_before(hidden)).chunk(3, dim=-1)
        queries, keys = self.query_norm(queries), self.key_norm(keys)
        split = (*hidden.shape[:2], self.heads, -1)
        return (
            queries.reshape(split).transpose(1, 2),
            keys.reshape(split).transpose(1, 2),
            values.reshape(split).transpose(1, 2),
        )

    def attend(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return scaled_dot_product_attention(queries, keys, values, scale=self.scale)

    def mix(self, hidden: torch.Tensor, attended: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds the attention's result; returns that and its norm, the input of the feed-forward."""
        hidden = hidden + self.attention_scale * self.out(attended.transpose(1, 2).flatten(2))
        return hidden, self.norm_after(hidden)

    def expand(self, normed: torch.Tensor) -> torch.Tensor:
        """The feed-forward's first half.

        In reduced precision on a GPU, GELU is part of the matrix product's kernel. That kernel uses the tanh form,
        which is off by less than 5e-4, a tenth of bfloat16's rounding.
        """
        first = self.mlp.fc1
        if self.is_gelu and normed.is_cuda and normed.dtype != torch.float32:
            flat = torch._addmm_activation(first.bias, normed.flatten(0, 1), first.weight.t(), use_gelu=True)
            return flat.view(normed.shape[0], normed.shape[1], -1)
        expanded: torch.Tensor = self.mlp.activation_fn(first(normed))
        return expanded

    def contract(self, hidden: torch.Tensor, expanded: torch.Tensor) -> torch.Tensor:
        """The feed-forward's second half, added."""
        result: torch.Tensor = hidden + self.mlp_scale * self.mlp.fc2(expanded)
        return result

    def advance(
        self, after: "_VisionLayer", hidden: torch.Tensor, expanded: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """`contract` of this layer and `project` of the next in one, so that they compile into fewer passes."""
        hidden = self.contract(hidden, expanded)
        return hidden, *after.project(hidden)
