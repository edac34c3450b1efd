"""Greedy replies, token by token, after a prefill: `generate_tokens`."""

__all__ = ["generate_tokens"]

from vlac_gym.critic.engines.answering import Pick, TokenPicker
from vlac_gym.critic.engines.attention import KeysValues
from vlac_gym.critic.engines.base import AnswerKind
from vlac_gym.critic.engines.text_decoder import TextDecoder
from vlac_gym.extras import needs

with needs("The transformers engine", "vlac"):
    import torch


def generate_tokens(
    decoder: TextDecoder,
    picker: TokenPicker,
    answer: AnswerKind,
    prefilled: tuple[torch.Tensor, list[KeysValues]],
    *,
    last: torch.Tensor,
    visible: torch.Tensor,
    prefix: list[KeysValues] | None,
    steps: int,
    stops: torch.Tensor | None = None,
) -> list[Pick]:
    """The reply tokens of a batch, one `Pick` per step; nothing waits for the device but texts.

    Args:
        decoder: The language model.
        picker: Chooses the tokens.
        answer: Kind of answer.
        prefilled: What `TextDecoder.prefill` returned; with the keys and values kept, if there is more than one step.
        last: (B,) index of each prompt's last position behind the prefix.
        visible: Bool (B, P + L), False at padding.
        prefix: Keys and values of P positions before all rows, or None.
        steps: Most tokens of a reply.
        stops: Ids of the tokens that end a text; numbers need none.
    """
    logits, kept = prefilled
    start = prefix[0][0].shape[2] if prefix else 0
    picks = [picker.pick(logits, answer, 0)]
    ended = torch.zeros_like(picks[0].tokens, dtype=torch.bool)
    while len(picks) < steps:
        if stops is not None:
            ended |= torch.isin(picks[-1].tokens, stops)
            if bool(ended.all()):
                break
        visible = torch.cat([visible, visible.new_ones(len(visible), 1)], dim=1)
        logits, kept = decoder.step(
            picks[-1].tokens, last + start + len(picks), visible=visible, prefix=prefix, kept=kept
        )
        picks.append(picker.pick(logits, answer, len(picks)))
    return picks
