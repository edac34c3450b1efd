"""The memory of one card in each phase of SimpleVLA-RL with OpenVLA-OFT, as arithmetic: `card_memory`.

A plan, not a measurement of a card. What autograd keeps is counted, in the model's real shapes, by a test that builds
it of tensors without memory (tests/trainers/simplevla/test_simplevla_memory.py); the rest is sizes of what FSDP and
AdamW hold (PyTorch's documentation of `FullyShardedDataParallel`, `MixedPrecision` and `AdamW`). In GB of 10^9 bytes,
of which an 80 GB H100 has 85.5 (81,559 MiB).
"""

__all__ = ["CRITIC_GB", "PICTURE_BYTES", "TOKEN_BYTES", "Weights", "WEIGHTS", "card_memory"]

from dataclasses import dataclass

from verl_env_adapter.simplevla.recipe import StepSizes


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Numbers of weights.

    Attributes:
        model: All of them.
        layer: One layer of the language model, a unit of FSDP of its own.
        root: What is in no smaller unit: embeddings, head, norm, projector.
    """

    model: int
    layer: int
    root: int


WEIGHTS = Weights(model=7_541_237_184, layer=202_383_360, root=2 * 131_334_144 + 4_096 + 71_385_600)
"""OpenVLA-OFT's: Llama-2-7B, DINOv2-L, SigLIP-so400m, fused projector, no proprioception."""

TOKEN_BYTES = 6_263_556
"""What autograd keeps of a token in all 32 layers of the language model, bfloat16, SDPA, no checkpointing."""

PICTURE_BYTES = 493_087_168 + 57_507_840
"""What it keeps of a picture in towers and projector; the second number are LayerNorms' inputs, which autocast makes
float32: 2 bytes x 2 norms x (24 blocks x 261 x 1024 + 27 blocks x 256 x 1152)."""

CRITIC_GB = {"awake": 15.4, "asleep": 0.6}
"""VLAC-2B served with ``--gpu-memory-fraction 0.18``: that share of 85.5; 67 MiB and a CUDA context of 0.5 GB."""

PROMPT_TOKENS = 40
_PATCHES, _ACTIONS_AND_STOP, _VOCABULARY, _WIDTH = 256, 8 * 7 + 1, 32_064, 4_096
_CONTEXT_GB = 2.0
"""CUDA context and NCCL's buffers."""
_SIMULATOR_GB = 0.2
"""One EGL context with the scene's textures."""
_PIXEL_BYTES = 6 * 224 * 224 * 4
"""A picture as the two towers see it, float32; a worker keeps those of its episodes until the old log-probabilities."""
_LOGITS_BYTES = 2 + 4
"""bfloat16, and float32 where transformers casts them (4.40)."""


def card_memory(
    sizes: StepSizes, *, images: int = 1, weights: Weights = WEIGHTS
) -> dict[str, dict[str, float]]:
    """GB of each part in the three phases of a step, with their sum.

    Args:
        sizes: The recipe's.
        images: Pictures in one input.
        weights: The model's.

    Returns:
        Phase -> part -> GB; `rollout` and `old_log_probs` with the critic awake, `update` with it asleep.
    """
    tokens = _PATCHES * images + PROMPT_TOKENS + _ACTIONS_AND_STOP
    shard = 4.0 * weights.model / sizes.cards
    pictures = float(sizes.episodes // sizes.cards * sizes.passes * sizes.chunks * images * _PIXEL_BYTES)
    gathered = 2.0 * (weights.root + 2 * weights.layer)
    row_logits = float(tokens * _VOCABULARY)
    rollout = {
        "weights": shard,
        # generate_action_verl reads the root's in float32 (summon_full_params, rob_rollout.py:937).
        "gathered": gathered + 2.0 * weights.root,
        "forward": sizes.simulators * row_logits * _LOGITS_BYTES,
        "pictures": pictures,
        "simulators": sizes.simulators * _SIMULATOR_GB * 1e9,
    }
    log_probs = {
        "weights": shard,
        "gathered": gathered,
        "pictures": pictures,
        "forward": sizes.log_prob_chunks * (row_logits * _LOGITS_BYTES + 2 * tokens * _WIDTH * 2),
    }
    update = {
        "weights": shard,
        "gathered": gathered,
        "gradients": shard,
        # Before it is reduced and sharded, a unit's gradient is whole, in bfloat16 and in float32.
        "gathered_gradients": 6.0 * (weights.root + weights.layer),
        "adam": 2 * shard,
        "activations": float(sizes.chunks * (tokens * TOKEN_BYTES + images * PICTURE_BYTES)),
        # Twice: the logits and their gradients.
        "logits": 2 * sizes.chunks * row_logits * _LOGITS_BYTES,
    }
    return {
        "rollout": _summed(rollout, "awake"),
        "old_log_probs": _summed(log_probs, "awake"),
        "update": _summed(update, "asleep"),
    }


def _summed(parts: dict[str, float], critic: str) -> dict[str, float]:
    rounded = {name: round(size / 1e9, 1) for name, size in parts.items()}
    rounded |= {"context": _CONTEXT_GB, f"critic_{critic}": CRITIC_GB[critic]}
    return {**rounded, "sum": round(sum(rounded.values()), 1)}
