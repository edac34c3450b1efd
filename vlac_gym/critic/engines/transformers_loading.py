"""Loads a native InternVL checkpoint with transformers: `LoadedCheckpoint`, `load_checkpoint`."""

__all__ = [
    "LoadedCheckpoint",
    "bytes_per_token",
    "image_geometry",
    "load_checkpoint",
    "load_model",
    "load_prompt_encoder",
    "pick_device",
    "pick_dtype",
]

from dataclasses import dataclass
from typing import Any

from vlac_gym.critic.engines.chat_prompts import PromptEncoder
from vlac_gym.critic.engines.checkpoint_digest import checkpoint_digest
from vlac_gym.critic.engines.checkpoint_files import CheckpointFacts
from vlac_gym.critic.engines.text_decoder import TextDecoder
from vlac_gym.critic.engines.transformers_versions import load_tokenizer, model_config
from vlac_gym.critic.engines.vision_encoder import VisionEncoder
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.extras import needs

with needs("The transformers engine", "vlac"):
    import torch
    import transformers

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, eq=False)
class LoadedCheckpoint:
    """The parts of a model, ready to run.

    Attributes:
        vision: Frames to features.
        text: Language model.
        prompts: Requests to token ids.
        image_size: Side of the square pictures the vision encoder takes, in pixels.
        patches: Positions that the vision encoder computes per picture.
        digest: Of the files; see `checkpoint_digest`.
    """

    vision: VisionEncoder
    text: TextDecoder
    prompts: PromptEncoder
    image_size: int
    patches: int
    digest: str


def pick_device(device: str | None) -> torch.device:
    """The named device, by default the first GPU if there is one.

    Raises:
        ConfigError: No such device.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        picked = torch.device(device)
    except RuntimeError as e:
        raise ConfigError(f"Expected a device such as 'cpu' or 'cuda:0', got {device!r}.") from e
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"Expected a device of this machine, got {device!r}; torch sees none of that name.")
    if device == "cuda":  # some torch functions insist on a number
        return torch.device("cuda", torch.cuda.current_device())
    return picked


def pick_dtype(dtype: str | None, device: torch.device) -> torch.dtype:
    """The named dtype, by default bfloat16 on accelerators and float32 on the CPU."""
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in _DTYPES:
        raise unknown_name("dtype", dtype, _DTYPES)
    return _DTYPES[dtype]


def bytes_per_token(facts: CheckpointFacts, itemsize: int) -> int:
    """Working memory of one token, in text or picture, whichever needs more.

    Text: a layer's widest values, and keys and values of all layers. Picture: a layer's widest values, and four
    float32 copies of a patch's pixels while it is resized.
    """
    config: Any = model_config(facts.config)
    text, vision = config.text_config, config.vision_config
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    kept = 2 * text.num_hidden_layers * heads * head_dim
    of_text = kept + 4 * text.intermediate_size + 8 * text.hidden_size
    of_picture = 2 * vision.intermediate_size + 8 * vision.hidden_size
    pixels = 4 * 4 * 3 * vision.patch_size[0] * vision.patch_size[1]
    return int(max(of_text * itemsize, of_picture * itemsize + pixels))


def load_checkpoint(facts: CheckpointFacts, device: torch.device, dtype: torch.dtype) -> LoadedCheckpoint:
    """Loads tokenizer and weights; no code from the checkpoint runs.

    Raises:
        ConfigError: The tokenizer lacks tokens, or the weights do not fill the model.
    """
    config = model_config(facts.config)
    side, patches = image_geometry(config)
    prompts = load_prompt_encoder(facts)
    model = load_model(facts, dtype)
    with torch.no_grad():
        vision = VisionEncoder(model.model).to(device).eval()
        text = TextDecoder(model.model.language_model, model.lm_head).to(device).eval()
    return LoadedCheckpoint(
        vision.requires_grad_(False),
        text.requires_grad_(False),
        prompts,
        side,
        patches,
        checkpoint_digest(facts.path),
    )


def load_prompt_encoder(facts: CheckpointFacts) -> PromptEncoder:
    """The checkpoint's tokenizer, checked against its config and embedding.

    Raises:
        ConfigError: It can't be loaded without running code, lacks tokens or has too many.
    """
    config: Any = model_config(facts.config)
    try:
        tokenizer = load_tokenizer(facts.path)
    except (OSError, ValueError, KeyError, ImportError) as e:
        raise ConfigError(
            f"The tokenizer in {str(facts.path)!r} can't be loaded without running code of its own: {e}"
        ) from e
    return PromptEncoder(tokenizer, config.image_token_id, config.image_seq_length, facts.embedding_rows)


def image_geometry(config: Any) -> tuple[int, int]:
    """Side in pixels and positions per picture of a model's config.

    Raises:
        ConfigError: Pictures are not square, or features and image tokens differ in number.
    """
    (height, width), (patch, _) = config.vision_config.image_size, config.vision_config.patch_size
    rows = height // patch
    features = int(rows * config.downsample_ratio) ** 2
    if height != width or features != config.image_seq_length:
        raise ConfigError(
            f"Expected square pictures with {config.image_seq_length} features each (image_seq_length), "
            f"got {height}x{width} with {features}."
        )
    return height, rows * rows + 1


def load_model(facts: CheckpointFacts, dtype: torch.dtype) -> Any:
    """The whole `InternVLForConditionalGeneration` on the CPU.

    Raises:
        ConfigError: The weights do not fill the model.
    """
    try:
        loaded: Any = transformers.InternVLForConditionalGeneration.from_pretrained(
            facts.path,
            config=model_config(facts.config),
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as e:
        raise ConfigError(f"The weights in {str(facts.path)!r} do not fit its config.json: {e}") from e
    model, report = loaded
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ConfigError(
            f"Expected weights for the whole model in {str(facts.path)!r}, "
            f"{len(missing)} are missing, e.g. {', '.join(missing[:3])}."
        )
    return model
