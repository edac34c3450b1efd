"""Attention for prompts and single tokens, with keys and values of a shared prefix."""

__all__ = [
    "KeysValues",
    "attend_one",
    "attend_prompt",
    "fuse_linears",
    "with_prefix",
    "without_cudnn_attention",
]

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vlac_gym.extras import needs

with needs("The transformers engine", "vlac"):
    import torch
    from torch import nn
    from torch.nn.attention.bias import causal_lower_right
    from torch.nn.functional import scaled_dot_product_attention

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each (B, key heads, tokens, head width)."""


class _CudnnAttentionSwitch:
    """Off while anybody in the process wants it off; then what it was before, if it was on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._was_on = True

    def turn_off(self) -> None:
        with self._lock:
            if not self._users:
                self._was_on = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
                if self._was_on:
                    torch.backends.cuda.enable_cudnn_sdp(False)
            self._users += 1

    def give_back(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._was_on:
                torch.backends.cuda.enable_cudnn_sdp(True)


_cudnn_attention = _CudnnAttentionSwitch()


@contextmanager
def without_cudnn_attention(device: torch.device) -> Iterator[None]:
    """A block in which `scaled_dot_product_attention` on a CUDA device uses any of its kernels but cuDNN's.

    PyTorch prefers cuDNN's on Hopper GPUs. They plan each new shape on the host for 20 ms or more (torch 2.11, cuDNN
    9.19; docs/critic_speed.md), and a critic's questions come in batches of every size. The setting is the process's,
    as PyTorch has it: attention in other threads goes without cuDNN's kernels while the block runs, and a thread that
    changes the setting meanwhile (`sdpa_kernel`) may put back what it found in the block.
    """
    if device.type != "cuda":
        yield
        return
    _cudnn_attention.turn_off()
    try:
        yield
    finally:
        _cudnn_attention.give_back()


def with_prefix(prefix: KeysValues | None, keys: torch.Tensor, values: torch.Tensor) -> KeysValues:
    """Puts a prefix of one row before the keys and values of every row."""
    if prefix is None:
        return keys, values
    rows = keys.shape[0]
    return (
        torch.cat([prefix[0].expand(rows, -1, -1, -1), keys], dim=2),
        torch.cat([prefix[1].expand(rows, -1, -1, -1), values], dim=2),
    )


def attend_prompt(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Causal attention of the last `L` of `S` positions.

    Rows may be padded on the right: no real position sees what follows it, so no mask is needed and the
    fastest kernels apply.

    Args:
        queries: (B, heads, L, head width).
        keys: (B, key heads, S, head width), S >= L.
        values: As keys.

    Returns:
        (B, heads, L, head width).
    """
    length, total = queries.shape[2], keys.shape[2]
    grouped = queries.shape[1] != keys.shape[1]
    if length == total:
        return scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=grouped)
    bias = causal_lower_right(length, total)
    return scaled_dot_product_attention(queries, keys, values, attn_mask=bias, enable_gqa=grouped)


def attend_one(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor | None
) -> torch.Tensor:
    """Attention of one position per row; the query heads of one key head go through as a block.

    Args:
        queries: (B, heads, 1, head width).
        keys: (B, key heads, S, head width).
        values: As keys.
        visible: Bool (B, S), or None if every position is visible.

    Returns:
        (B, 1, heads * head width).
    """
    rows, heads, _, width = queries.shape
    grouped = queries.reshape(rows, keys.shape[1], heads // keys.shape[1], width)
    mask = None if visible is None else visible[:, None, None, :]
    out = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
    return out.reshape(rows, 1, heads * width)


def fuse_linears(layers: Sequence[nn.Linear]) -> nn.Linear:
    """One linear layer that computes several of the same input, outputs side by side."""
    weight = torch.cat([layer.weight for layer in layers])
    fused = nn.Linear(weight.shape[1], weight.shape[0], bias=layers[0].bias is not None, device="meta")
    fused.weight = nn.Parameter(weight, requires_grad=False)
    if fused.bias is not None:
        fused.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]), requires_grad=False)
    return fused
