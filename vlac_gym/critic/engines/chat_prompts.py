"""From requests to token ids, as ms-swift's ChatML template for InternVL writes them.

`PromptEncoder` encodes, `EncodedPrompt` is its result, `ReplyTokens` names numeric, sign and stop tokens.
"""

__all__ = ["EncodedPrompt", "PromptEncoder", "ReplyTokens", "check_request"]

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.critic.base import check_frames
from vlac_gym.critic.engines.base import EngineRequest
from vlac_gym.errors import ConfigError

_IMAGE_MARK = "<image>"
_CONTROL_MARKS = ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
_WORD_MARKS = "▁Ġ"
"""How sentencepiece and byte-level tokenizers write a leading space."""


@dataclass(frozen=True, eq=False)
class EncodedPrompt:
    """Token ids of one prompt.

    Attributes:
        ids: int64 (tokens,), image positions filled with the image token; not to be modified.
        image_starts: Index of the first of `image_tokens` positions, for each frame.
        image_tokens: Positions per frame.
    """

    ids: NDArray[np.int64]
    image_starts: tuple[int, ...]
    image_tokens: int


@dataclass(frozen=True)
class ReplyTokens:
    """Which tokens make a reply: `numbers` and `signs` (sorted ids) and `stops`."""

    numbers: tuple[int, ...]
    signs: tuple[int, ...]
    stops: frozenset[int]


class PromptEncoder:
    """Encodes prompts with one tokenizer; text pieces between frames are encoded once and remembered.

    Args:
        tokenizer: A Hugging Face tokenizer.
        image_token_id: The id that stands for picture features.
        image_tokens: Positions per frame.
        vocabulary_size: Rows of the token embedding.

    Raises:
        ConfigError: The tokenizer lacks ChatML, image, sign or number tokens, disagrees on the image token,
            or has ids beyond the embedding.
    """

    def __init__(self, tokenizer: Any, image_token_id: int, image_tokens: int, vocabulary_size: int) -> None:
        _check_tokenizer(tokenizer, image_token_id, vocabulary_size)
        self._tokenizer = tokenizer
        self._image_token_id = image_token_id
        self._image_tokens = image_tokens
        with_start = tokenizer.encode("a")
        bare = tokenizer.encode("a", add_special_tokens=False)
        self._start = tuple(with_start[: len(with_start) - len(bare)]) if with_start != bare else ()
        self._encode_text = lru_cache(maxsize=4096)(self._encode_text_uncached)
        self._token_texts: dict[int, str] = {}
        self.reply_tokens = _find_reply_tokens(tokenizer)

    def encode(self, request: EngineRequest) -> EncodedPrompt:
        """Lays out one request: system, user text with frames at their marks, start of the reply.

        Raises:
            ConfigError: Marks and frames differ in number, the text holds chat or image tokens, a frame is
                malformed, or nothing is to be generated.
        """
        check_request(request)
        return self._encode_text(request.system, request.prompt, len(request.frames))

    def token_text(self, token_id: int) -> str:
        """The text of one token, special tokens as they are written."""
        if token_id not in self._token_texts:
            self._token_texts[token_id] = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return self._token_texts[token_id]

    def reply_text(self, token_ids: list[int]) -> str:
        """The text of a reply without its stop token."""
        text: str = self._tokenizer.decode(
            [token for token in token_ids if token not in self.reply_tokens.stops], skip_special_tokens=False
        )
        return text

    def _encode_text_uncached(self, system: str, prompt: str, num_frames: int) -> EncodedPrompt:
        content = prompt if _IMAGE_MARK in prompt else _IMAGE_MARK * num_frames + prompt
        head = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
        text = f"{head}<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
        pieces = text.split(_IMAGE_MARK)
        ids, starts = list(self._start), []
        for i, piece in enumerate(pieces):
            before = "</img>\n" if i > 0 else ""
            after = "<img>" if i < len(pieces) - 1 else ""
            ids += self._tokenizer.encode(before + piece + after, add_special_tokens=False)
            if after:
                starts.append(len(ids))
                ids += [self._image_token_id] * self._image_tokens
        return EncodedPrompt(np.array(ids, dtype=np.int64), tuple(starts), self._image_tokens)


def _check_tokenizer(tokenizer: Any, image_token_id: int, vocabulary_size: int) -> None:
    if len(tokenizer) > vocabulary_size:
        raise ConfigError(
            f"Expected a tokenizer of at most {vocabulary_size} tokens (rows of the embedding), got {len(tokenizer)}."
        )
    wanted = [*_CONTROL_MARKS, "+", "-", *map(str, range(101))]
    split = [text for text in wanted if not _is_one_token(tokenizer, text)]
    if split:
        shown = ", ".join(repr(text) for text in split[:5])
        raise ConfigError(
            f"Expected single tokens for {shown}{' and more' if len(split) > 5 else ''}; the tokenizer splits "
            f"{len(split)} of the {len(wanted)} that a critic needs. Is it the checkpoint's own?"
        )
    found = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    if found != image_token_id:
        raise ConfigError(
            f"Expected image token id {image_token_id} of config.json, the tokenizer has {found}."
        )


def _is_one_token(tokenizer: Any, text: str) -> bool:
    """Whether a token is written like `text`.

    A sentencepiece tokenizer may put a space token in front of a text; in a reply the number has none.
    """
    found = tokenizer.convert_tokens_to_ids(text)
    if found is not None and found != tokenizer.unk_token_id:
        return True
    return len(tokenizer.encode(text, add_special_tokens=False)) == 1


def _find_reply_tokens(tokenizer: Any) -> ReplyTokens:
    pieces = [piece or "" for piece in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
    plain = [piece.lstrip(_WORD_MARKS) for piece in pieces]
    numbers = tuple(i for i, piece in enumerate(plain) if piece.isascii() and piece.isdigit())
    signs = tuple(i for i, piece in enumerate(plain) if piece in ("+", "-"))
    stops = {tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id}
    return ReplyTokens(numbers, signs, frozenset(stop for stop in stops if stop is not None))


def check_request(request: EngineRequest) -> None:
    """Raises `ConfigError` unless the request is well-formed and its texts hold no chat or image tokens."""
    check_frames(request.frames)
    for mark in _CONTROL_MARKS:
        if mark in request.prompt or mark in request.system:
            raise ConfigError(f"Expected a prompt without chat or image tokens, got one with {mark!r}.")
    marks = request.prompt.count(_IMAGE_MARK)
    if _IMAGE_MARK in request.system or marks not in (0, len(request.frames)):
        raise ConfigError(
            f"Expected one {_IMAGE_MARK} mark in the prompt per frame or none at all, "
            f"got {marks} marks for {len(request.frames)} frames."
        )
    if request.max_new_tokens < 1:
        raise ConfigError(f"Expected max_new_tokens >= 1, got {request.max_new_tokens}.")
    if not 0 <= request.shared_frames <= len(request.frames):
        raise ConfigError(
            f"Expected shared_frames from 0 to {len(request.frames)} (the frames given), "
            f"got {request.shared_frames}."
        )
