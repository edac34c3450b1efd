"""Turns InternLM2's tokenizer into a fast one without its remote code: `ConvertedTokenizer`, `convert_tokenizer`.

The original is a sentencepiece BPE model with added tokens, or a `tokenizer.json`. Sentencepiece's pieces become
a byte-fallback BPE whose merges are ranked by the pieces' scores; the result is compared with sentencepiece
itself on probe texts before it is used.
"""

__all__ = ["NEEDED_TOKENS", "ConvertedTokenizer", "convert_tokenizer"]

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlac_gym.critic.vlac.tiny_checkpoint import CHAT_TEMPLATE
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.json_objects import read_json_object

NEEDED_TOKENS = ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
"""What the prompts of this family are built from (ChatML and one picture)."""

_NAMED_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
}
"""The names under which `InternVLProcessor` looks its tokens up."""

_VIDEO_TOKENS = ("<video>", "<|plugin|>", "<|interpreter|>", "<quad>", "<IMG_CONTEXT>")
"""What may stand for a video, the first that exists. `InternVLProcessor` and vLLM's start-up, which tries a video,
want a token of its own; InternLM2 has none and its embedding no row for one, but it has tokens that no prompt uses."""

_PROBES = (
    "Image-1: \nImage-2: \nCompare two images and evaluate whether the second image is closer to achieving task "
    "objectives compared to the first image. + score means the second image is closer, - score means the first "
    "image is closer\nResponse the relative progressing of target task follow <score>. The target task is: "
    "<task> put the bowl on the plate </task> <score>",
    "The 1 means yes, the 0 means no. Check if the robot has completed its task: <task> pick 3 cups </task> <done>",
    "system\nYou are a visual-language assistant.",
    "  two  spaces, a\ttab,\n\n a blank line and 1234567890 +5 -17 100%",
    "Grüße, 机器人把碗放在盘子上, робот, 🤖\u200b\u00a0é e\u0301",
    " ".join(map(str, range(0, 1000, 37))),
)
"""Texts on which the fast tokenizer must equal sentencepiece."""

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
"""Piece types of sentencepiece_model.proto."""


@dataclass(frozen=True)
class ConvertedTokenizer:
    """A fast tokenizer and what the model's configuration needs to know of it.

    Attributes:
        tokenizer: A `transformers.PreTrainedTokenizerFast`.
        source: The file that it was made of.
        single_token_numbers: 0..n-1 are one token each.
    """

    tokenizer: Any
    source: Path
    single_token_numbers: int

    def id_of(self, token: str) -> int:
        """Id of a token that `NEEDED_TOKENS` lists."""
        return int(self.tokenizer.convert_tokens_to_ids(token))


def convert_tokenizer(directory: Path, vocab_size: int) -> ConvertedTokenizer:
    """Builds the fast tokenizer of the checkpoint in `directory`.

    Args:
        directory: Holds `tokenizer.json` or `tokenizer.model`, and `tokenizer_config.json`.
        vocab_size: Rows of the embedding.

    Raises:
        ConfigError: No tokenizer, one without the needed tokens, ids beyond the embedding, or a sentencepiece
            model that a fast tokenizer can't reproduce.
        DependencyNotInstalled: transformers or, for a `tokenizer.model`, sentencepiece is missing.
    """
    transformers = _import("transformers")
    config = _read_json(directory / "tokenizer_config.json")
    added = _added_tokens(directory, config)
    fast, spm = directory / "tokenizer.json", directory / "tokenizer.model"
    if fast.is_file():
        source, tokenizer = fast, _load_fast(fast)
    elif spm.is_file():
        source, tokenizer = spm, _from_sentencepiece(spm, added)
    else:
        raise ConfigError(f"Expected tokenizer.model or tokenizer.json in {directory}, got neither.")
    _check_vocabulary(tokenizer, vocab_size, source)
    template = CHAT_TEMPLATE
    begin = _text(config.get("bos_token")) or "<s>"
    if config.get("add_bos_token", True) and tokenizer.token_to_id(begin) is not None:
        _prepend_begin(tokenizer, begin)
        template = "{{ bos_token }}" + template
    elif fast.is_file():
        tokenizer.post_processor = _import("tokenizers").processors.Sequence([])
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin if tokenizer.token_to_id(begin) is not None else None,
        eos_token="<|im_end|>",
        pad_token=_text(config.get("pad_token")) or "</s>",
        unk_token=_text(config.get("unk_token")) or "<unk>",
        extra_special_tokens=_NAMED_TOKENS | {"video_token": _video_token(tokenizer)},
        chat_template=template,
        clean_up_tokenization_spaces=False,
        model_max_length=int(config.get("model_max_length", 8192)),
    )
    _check_vocabulary(wrapped.backend_tokenizer, vocab_size, source)
    return ConvertedTokenizer(wrapped, source, _single_token_numbers(tokenizer))


def _from_sentencepiece(path: Path, added: Mapping[int, tuple[str, bool]]) -> Any:
    sentencepiece = _import("sentencepiece", "convert")
    model = _import("sentencepiece.sentencepiece_model_pb2", "convert").ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        processor = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except (RuntimeError, ValueError, _import("google.protobuf.message", "convert").DecodeError) as e:
        raise ConfigError(f"Expected a sentencepiece model at {path}, got another file ({e}).") from e
    if model.trainer_spec.model_type != 2 or model.normalizer_spec.remove_extra_whitespaces:
        raise ConfigError(
            f"Expected a BPE sentencepiece model that keeps white space at {path}, as InternLM2's, "
            f"got model type {model.trainer_spec.model_type}."
        )
    names = [piece.piece for piece in model.pieces]
    for token_id, (text, _) in added.items():
        if token_id < len(names):
            names[token_id] = text
    tokenizer = _build_bpe(model, names)
    _add_tokens(tokenizer, model, added, path)
    _compare(tokenizer, processor, names, path)
    return tokenizer


def _build_bpe(model: Any, names: list[str]) -> Any:
    """A BPE over the pieces; control, byte and user-defined pieces take no part in merges."""
    tokenizers = _import("tokenizers")
    vocab = {name: i for i, name in enumerate(names)}
    scores = {p.piece: p.score for p in model.pieces if p.type in (_NORMAL, _UNUSED) and p.piece in vocab}
    bpe = tokenizers.models.BPE(
        vocab, _merges(scores, vocab), unk_token=names[0], fuse_unk=True, byte_fallback=True
    )
    tokenizer = tokenizers.Tokenizer(bpe)
    normalizers, decoders = tokenizers.normalizers, tokenizers.decoders
    spec = model.normalizer_spec
    charsmap = [normalizers.Precompiled(spec.precompiled_charsmap)] if spec.precompiled_charsmap else []
    prefix = [normalizers.Prepend("▁")] if spec.add_dummy_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*charsmap, *prefix, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if spec.add_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _merges(scores: Mapping[str, float], vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every way to put a piece together from two others, best score first: sentencepiece's own order."""
    ranked = []
    for piece, score in scores.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in scores and right in scores:
                ranked.append((-score, vocab[left], vocab[right], left, right))
    return [(left, right) for *_, left, right in sorted(ranked)]


def _add_tokens(tokenizer: Any, model: Any, added: Mapping[int, tuple[str, bool]], path: Path) -> None:
    added_token = _import("tokenizers").AddedToken
    defined = [p.piece for i, p in enumerate(model.pieces) if p.type == _USER_DEFINED and i not in added]
    tokenizer.add_tokens([added_token(piece, normalized=True, special=False) for piece in defined])
    control = [
        p.piece for i, p in enumerate(model.pieces) if p.type in (_UNKNOWN, _CONTROL) and i not in added
    ]
    tokenizer.add_special_tokens([added_token(piece, normalized=False, special=True) for piece in control])
    for token_id, (text, special) in sorted(added.items()):
        token = added_token(text, normalized=False, special=special)
        tokenizer.add_special_tokens([token]) if special else tokenizer.add_tokens([token])
        if tokenizer.token_to_id(text) != token_id:
            raise ConfigError(
                f"Expected added token {text!r} with id {token_id}, got {tokenizer.token_to_id(text)}: the ids "
                f"beside {path} leave a gap after its {len(model.pieces)} pieces."
            )


def _compare(tokenizer: Any, processor: Any, names: list[str], path: Path) -> None:
    for probe in _PROBES:
        expected = [names[i] for i in processor.encode(probe)]
        got = tokenizer.encode(probe, add_special_tokens=False).tokens
        if got != expected:
            raise ConfigError(
                f"The sentencepiece model {path} does not convert: {probe[:40]!r} gives {expected[:12]}, "
                f"but the fast tokenizer gives {got[:12]}. Please report it with the model's name."
            )


def _added_tokens(directory: Path, config: Mapping[str, Any]) -> dict[int, tuple[str, bool]]:
    """Id -> (text, is special) of tokens declared beside the model."""
    declared = config.get("added_tokens_decoder")
    try:
        if declared:
            return {int(i): (str(t["content"]), bool(t.get("special", True))) for i, t in declared.items()}
        return {int(i): (str(text), True) for text, i in _read_json(directory / "added_tokens.json").items()}
    except (KeyError, TypeError, ValueError) as e:
        raise ConfigError(f"The added tokens in {directory} do not parse: {e!r}.") from e


def _check_vocabulary(tokenizer: Any, vocab_size: int, source: Path) -> None:
    missing = [token for token in NEEDED_TOKENS if tokenizer.token_to_id(token) is None]
    if missing:
        raise ConfigError(
            f"Expected the tokens {', '.join(NEEDED_TOKENS)} in the tokenizer {source}, {', '.join(missing)} missing. "
            "Is tokenizer_config.json or added_tokens.json beside it?"
        )
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if largest >= vocab_size:
        raise ConfigError(
            f"Expected token ids below the embedding's {vocab_size} rows, got {largest} in {source}."
        )


def _video_token(tokenizer: Any) -> str:
    return next(token for token in _VIDEO_TOKENS if tokenizer.token_to_id(token) is not None)


def _prepend_begin(tokenizer: Any, begin: str) -> None:
    processors = _import("tokenizers").processors
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin}:0 $A:0",
        pair=f"{begin}:0 $A:0 {begin}:1 $B:1",
        special_tokens=[(begin, tokenizer.token_to_id(begin))],
    )


def _single_token_numbers(tokenizer: Any) -> int:
    for n in range(1000):
        if tokenizer.token_to_id(str(n)) is None:
            return n
    return 1000


def _load_fast(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    try:
        return _import("tokenizers").Tokenizer.from_str(text)
    except Exception as e:  # the Rust side raises a bare Exception for any malformed file
        raise ConfigError(f"Expected a fast tokenizer at {path}, which does not parse: {e}.") from e


def _text(token: Any) -> str | None:
    """A special token is a text or a dictionary with its `content`."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}


def _import(name: str, extra: str = "vlac") -> Any:
    with needs("Converting a checkpoint", extra):
        return importlib.import_module(name)
