"""Training losses on reply tokens: `reply_logits`, `done_loss`, `pair_loss`."""

__all__ = ["done_loss", "pair_loss", "reply_logits"]

from typing import Any

from vlac_gym.extras import needs
from vlac_gym.train_nano.batches import TokenBatch

with needs("Training nano", "vlac"):
    import torch
    import torch.nn.functional as F


def reply_logits(model: Any, batch: TokenBatch, pictures: torch.Tensor) -> torch.Tensor:
    """Logits of each answer position, float32 (B, 3, vocabulary); positions beyond the answer are arbitrary.

    Args:
        model: `InternVLForConditionalGeneration`.
        batch: Prompts with answers.
        pictures: (pictures, 3, side, side), in the order of the prompts' image positions.
    """
    hidden = model.model(
        input_ids=batch.ids, attention_mask=batch.mask, pixel_values=pictures, use_cache=False
    ).last_hidden_state
    offsets = torch.arange(-1, 2, device=hidden.device)
    positions = (batch.answer_starts[:, None] + offsets).clamp(max=hidden.shape[1] - 1)
    picked = hidden.gather(1, positions[:, :, None].expand(-1, -1, hidden.shape[2]))
    logits: torch.Tensor = model.lm_head(picked).float()
    return logits


def done_loss(logits: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
    """Cross-entropy of the answer and, lightly, of the end token."""
    first = F.cross_entropy(logits[:, 0], batch.answers[:, 0])
    end = F.cross_entropy(logits[:, 1], batch.answers[:, 1])
    return first + 0.05 * end


def pair_loss(
    logits: torch.Tensor, batch: TokenBatch, number_ids: torch.Tensor, sigma: float
) -> torch.Tensor:
    """Cross-entropy of sign (or the number 0), number and end; a number's target is spread over its neighbours.

    Args:
        logits: From `reply_logits`.
        batch: The pair batch.
        number_ids: Token ids of 0..100.
        sigma: Standard deviation of the spread, in percent.
    """
    is_signed = batch.answers[:, 2] >= 0
    first = F.cross_entropy(logits[:, 0], batch.answers[:, 0])
    ends = torch.where(is_signed, batch.answers[:, 2], batch.answers[:, 1])
    end_logits = torch.where(is_signed[:, None], logits[:, 2], logits[:, 1])
    end = F.cross_entropy(end_logits, ends)
    if not bool(is_signed.any()):
        return first + 0.05 * end
    token = batch.answers[is_signed, 1]
    number = (token[:, None] == number_ids[None]).float().argmax(dim=1)
    scale = torch.arange(len(number_ids), device=logits.device)
    weights = torch.exp(-0.5 * ((scale[None] - number[:, None]) / sigma) ** 2)
    weights[:, 0] = 0.0  # A signed reply is never zero.
    weights = weights / weights.sum(dim=1, keepdim=True)
    logprobs = torch.log_softmax(logits[is_signed, 1], dim=-1)[:, number_ids]
    return first - (weights * logprobs).sum(dim=1).mean() + 0.05 * end
