"""Builds small InternVL checkpoints in the native Hugging Face format, tokenizer included, from nothing.

`ModelSizes` says how big, `build_config` and `train_tokenizer` make the parts, `save_checkpoint` writes a
model with both, `make_tiny_checkpoint` does all of it with seeded random weights. Tests and CI use the tiny
one; a small trained critic is built from the same parts.
"""

__all__ = [
    "CHAT_TEMPLATE",
    "NUMBER_LIMIT",
    "SPECIAL_TOKENS",
    "ModelSizes",
    "build_config",
    "build_model",
    "favour_reply_tokens",
    "make_tiny_checkpoint",
    "processor_files",
    "save_checkpoint",
    "train_tokenizer",
]

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.output_folder import claim_folder

NUMBER_LIMIT = 1000
"""Whole numbers 0..999 are single tokens, as in VLAC's own tokenizer."""

IMAGE_TOKEN = "<IMG_CONTEXT>"
SPECIAL_TOKENS: dict[str, str] = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": IMAGE_TOKEN,
    "video_token": "<video>",
}
"""The names under which `InternVLProcessor` looks its tokens up."""

_CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or part['type'] == 'image_url' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML with one `<IMG_CONTEXT>` and a newline per image, which `InternVLProcessor` expands."""

_NUMBER_REPEATS = 50
"""How often the trainer sees each number, so that numbers are learned before rare words."""

_GAIN, _ATTENTION_GAIN = 1.5, 2.0
"""Standard deviation of random weights, times the square root of a layer's inputs."""

_TRAINING_TEXTS = (
    "You are a visual-language assistant designed to interpret spatial and task-related information from "
    "images and text. Provide precise, context-aware responses and actionable guidance to assist in "
    "achieving task objectives.",
    "Image-1: \nImage-2: \nCompare two images and evaluate whether the second image is closer to achieving "
    "task objectives compared to the first image. + score means the second image is closer, - score means the "
    "first image is closer\nResponse the relative progressing of target task follow <score>. The target task is: "
    "<task> put the bowl on the plate </task> <score>",
    "The 1 means yes, the 0 means no. Check if the robot has completed its task: <task> open the middle "
    "drawer of the cabinet </task> <done>",
    "<trajectory> <task> pick up the soup and place it in the basket </task>: 0% \n 33% \n 66% \n 100% \n"
    "</trajectory>This image is the trajectory beginning of the following two images",
    "system\nuser\nassistant\n",
)


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of an InternVL model; the defaults are the tiny checkpoint's.

    Attributes:
        image_size: Side of the square picture in pixels; a multiple of twice the patch size.
        patch_size: Side of a patch in pixels.
        vision_layers: Layers of the vision tower.
        vision_width: Width of the vision tower; a multiple of `vision_heads`.
        vision_heads: Attention heads of the vision tower.
        vision_mlp: Width of the vision tower's feed-forward layers.
        text_layers: Layers of the language model.
        text_width: Width of the language model.
        text_heads: Query heads; a multiple of `text_kv_heads`.
        text_kv_heads: Key and value heads.
        head_dim: Width of a text head. 64 by default: some attention kernels refuse less.
        text_mlp: Width of the language model's feed-forward layers.
        max_positions: Longest sequence in tokens.
        vocab_size: Rows of the token embedding; by default the tokenizer's size, rounded up to 64.
    """

    image_size: int = 448
    patch_size: int = 14
    vision_layers: int = 2
    vision_width: int = 64
    vision_heads: int = 2
    vision_mlp: int = 128
    text_layers: int = 2
    text_width: int = 128
    text_heads: int = 2
    text_kv_heads: int = 1
    head_dim: int = 64
    text_mlp: int = 256
    max_positions: int = 8192
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        if self.image_size % (2 * self.patch_size):
            raise ConfigError(
                f"Expected image_size as a multiple of {2 * self.patch_size} (twice patch_size), "
                f"got {self.image_size}."
            )
        if self.vision_width % self.vision_heads:
            raise ConfigError(
                f"Expected vision_width as a multiple of vision_heads={self.vision_heads}, "
                f"got {self.vision_width}."
            )
        if self.text_heads % self.text_kv_heads:
            raise ConfigError(
                f"Expected text_heads as a multiple of text_kv_heads={self.text_kv_heads}, "
                f"got {self.text_heads}."
            )

    @property
    def image_tokens(self) -> int:
        """Language-model tokens per picture after the 2x2 pixel shuffle, e.g. 256 at 448 pixels."""
        return (self.image_size // self.patch_size // 2) ** 2


def train_tokenizer(
    texts: Sequence[str] = _TRAINING_TEXTS, *, number_limit: int = NUMBER_LIMIT, vocab_size: int = 2048
) -> Any:
    """Trains a byte-level BPE tokenizer with ChatML and image tokens; deterministic.

    Signs are tokens of their own and never merge with digits. Any text round-trips: every byte is a token.

    Args:
        texts: What to train on, e.g. prompts and task texts.
        number_limit: Whole numbers below it, 10 to 1000, become single tokens.
        vocab_size: Upper bound of tokens learned, the numbers included.

    Returns:
        A `transformers.PreTrainedTokenizerFast`.

    Raises:
        ConfigError: `vocab_size` is too small for the numbers.
        DependencyNotInstalled: transformers is missing.
    """
    tokenizers, transformers = _import("tokenizers"), _import("transformers")
    if not 10 <= number_limit <= 1000:
        raise ConfigError(f"Expected number_limit from 10 to 1000, got {number_limit}.")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\p{N}{1,3}|[+-]"), behavior="isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[*_CONTROL_TOKENS, *SPECIAL_TOKENS.values()],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    numbers = [str(n) for n in range(number_limit)]
    bpe.train_from_iterator([*[" ".join(numbers)] * _NUMBER_REPEATS, *texts, *texts], trainer)
    split = [number for number in numbers if bpe.token_to_id(number) is None]
    if split:
        raise ConfigError(
            f"Expected a vocab_size with room for the numbers below {number_limit}, got {vocab_size}; "
            f"{len(split)} of them are split."
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=SPECIAL_TOKENS,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1_000_000,
    )


def build_config(sizes: ModelSizes, tokenizer: Any) -> Any:
    """The `transformers.InternVLConfig` of an InternViT tower, a projector and a Llama language model.

    The vision tower has InternViT-300M's options: layer norm, attention bias, no query-key norm.
    """
    transformers = _import("transformers")
    vision = transformers.InternVLVisionConfig(
        hidden_size=sizes.vision_width,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        intermediate_size=sizes.vision_mlp,
        image_size=(sizes.image_size, sizes.image_size),
        patch_size=(sizes.patch_size, sizes.patch_size),
        attention_bias=True,
        use_qk_norm=False,
        norm_type="layer_norm",
    )
    text = transformers.LlamaConfig(
        vocab_size=sizes.vocab_size or -(-len(tokenizer) // 64) * 64,
        hidden_size=sizes.text_width,
        intermediate_size=sizes.text_mlp,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=sizes.text_heads,
        num_key_value_heads=sizes.text_kv_heads,
        head_dim=sizes.head_dim,
        max_position_embeddings=sizes.max_positions,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers.InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=sizes.image_tokens,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )


def build_model(config: Any, seed: int) -> Any:
    """A seeded random `InternVLForConditionalGeneration` in float32 on the CPU.

    The global random state of torch is left as it was. Weights are drawn wider than transformers does, queries
    and keys most of all, so that even a tiny model tells pictures and texts apart.
    """
    torch, transformers = _import("torch"), _import("transformers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.InternVLForConditionalGeneration(config)
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                gain = _ATTENTION_GAIN if name.endswith(("q_proj.weight", "k_proj.weight")) else _GAIN
                torch.nn.init.normal_(parameter, std=gain / parameter[0].numel() ** 0.5)
    return model.eval()


def favour_reply_tokens(model: Any, tokenizer: Any) -> None:
    """Widens the head's rows of signs and of 0..100, so that random weights reply as a critic does."""
    torch = _import("torch")
    with torch.no_grad():
        for texts, factor in ((["+", "-"], 4.0), ([str(n) for n in range(101)], 2.0)):
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(texts)] *= factor


def save_checkpoint(directory: Path, model: Any, tokenizer: Any) -> None:
    """Writes model (safetensors), tokenizer and preprocessor files into `directory`, which is created."""
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory, safe_serialization=True)
    tokenizer.save_pretrained(directory)
    for name, content in processor_files(model.config).items():
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def make_tiny_checkpoint(directory: str | Path, *, seed: int = 0, sizes: ModelSizes | None = None) -> Path:
    """Writes a tiny native InternVL checkpoint with seeded random weights; the same bytes for the same seed.

    Args:
        directory: Where to; created, must be absent or empty.
        seed: Seed of the weights, in [0, 2^63).
        sizes: Sizes of the model; tiny by default.

    Returns:
        The directory.

    Raises:
        ConfigError: The directory is not empty, is in use, can't be written to, or is a file.
        DependencyNotInstalled: torch or transformers is missing.
    """
    if not 0 <= seed < 2**63:
        raise ConfigError(f"Expected a seed in [0, 2^63), got {seed}.")
    with claim_folder(Path(directory), what="the checkpoint") as path:
        tokenizer = train_tokenizer()
        model = build_model(build_config(sizes or ModelSizes(), tokenizer), seed)
        favour_reply_tokens(model, tokenizer)
        save_checkpoint(path, model, tokenizer)
    return path


def processor_files(config: Any) -> dict[str, dict[str, Any]]:
    """What other engines read: one tile per picture, LANCZOS (Pillow's filter 1), ImageNet mean and std."""
    side = config.vision_config.image_size[0]
    common = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "processor_class": "InternVLProcessor",
        "resample": 1,
        "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
    }
    image = {"crop_to_patches": False, "min_patches": 1, "max_patches": 1}
    return {
        "preprocessor_config.json": common | image | {"image_processor_type": "GotOcr2ImageProcessor"},
        "video_preprocessor_config.json": common | {"video_processor_type": "InternVLVideoProcessor"},
        "processor_config.json": {
            "image_seq_length": config.image_seq_length,
            "processor_class": "InternVLProcessor",
        },
    }


def _import(name: str) -> Any:
    with needs("A checkpoint", "vlac"):
        return importlib.import_module(name)
