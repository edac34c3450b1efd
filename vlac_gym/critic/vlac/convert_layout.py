"""How an InternVL2 chat checkpoint maps onto the native Hugging Face layout: `Layout`, `read_layout`, `Split`.

The original has InternViT (`vision_model`, fused `attn.qkv`), a projector (`mlp1`) and InternLM2
(`language_model`, fused `wqkv` grouped per key/value head). The native model has the same arithmetic with
separate projections and a Llama text model. Only facts of the configuration enter; no file is read here.
"""

__all__ = ["Layout", "Split", "Target", "read_layout"]

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError

Shape = tuple[int, ...]
Part = Literal["all", "q", "k", "v"]


@dataclass(frozen=True)
class Split:
    """How the rows of a fused query/key/value tensor are ordered.

    InternViT stacks all queries, all keys, all values: one group. InternLM2 has, for each key/value head, its
    `queries_per_group` query heads, then the key head, then the value head.

    Attributes:
        groups: Key/value heads that are stored one after the other; 1 for InternViT.
        queries_per_group: Query heads of a group, in units of `head_rows`.
        head_rows: Rows of one head; the model's width for InternViT.
    """

    groups: int
    queries_per_group: int
    head_rows: int

    def rows(self, part: Part, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The rows of one part, uint8 (rows of the part, bytes per row), in the order of its heads."""
        if part == "all":
            return rows
        heads = rows.reshape(self.groups, self.queries_per_group + 2, self.head_rows, rows.shape[1])
        picked = {"q": slice(0, self.queries_per_group), "k": slice(-2, -1), "v": slice(-1, None)}[part]
        return heads[:, picked].reshape(-1, rows.shape[1])

    def num_rows(self, part: Part) -> int:
        """Rows of one part."""
        per_group = {"all": self.queries_per_group + 2, "q": self.queries_per_group, "k": 1, "v": 1}[part]
        return self.groups * per_group * self.head_rows


@dataclass(frozen=True)
class Target:
    """One native tensor and the part of its source that it takes."""

    name: str
    shape: Shape
    part: Part = "all"


@dataclass(frozen=True)
class Layout:
    """Everything that the conversion of one checkpoint needs to know.

    Attributes:
        sources: Original tensor name -> its shape; exactly these must be there.
        targets: Original tensor name -> the native tensors made of it.
        splits: Original fused tensor name -> how its rows are ordered.
        config: `config.json` of the native checkpoint without token ids.
        image_tokens: Language-model tokens per picture.
        vocab_size: Rows of the embedding.
    """

    sources: dict[str, Shape]
    targets: dict[str, tuple[Target, ...]]
    splits: dict[str, Split]
    config: dict[str, Any]
    image_tokens: int
    vocab_size: int


def read_layout(config: Mapping[str, Any]) -> Layout:
    """Derives the layout from the original `config.json`.

    Raises:
        ConfigError: Another architecture, or a setting that the native model does not have.
    """
    try:
        _check_architecture(config)
        vision, text = _vision_config(config), _text_config(config)
        pairs = [*_vision_tensors(vision), *_projector_tensors(config, vision, text), *_text_tensors(text)]
        image_side = vision["image_size"][0] // vision["patch_size"][0]
        image_tokens = int(image_side**2 * float(config.get("downsample_ratio", 0.5)) ** 2)
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as e:
        raise ConfigError(f"The checkpoint's config.json lacks or misstates a setting: {e!r}.") from e
    return Layout(
        sources={name: shape for name, shape, _, _ in pairs},
        targets={name: targets for name, _, targets, _ in pairs},
        splits={name: split for name, _, _, split in pairs if split},
        config={
            "architectures": ["InternVLForConditionalGeneration"],
            "model_type": "internvl",
            "vision_config": vision,
            "text_config": text,
            "downsample_ratio": config.get("downsample_ratio", 0.5),
            "image_seq_length": image_tokens,
            "projector_hidden_act": "gelu",
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "default",
            "tie_word_embeddings": False,
        },
        image_tokens=image_tokens,
        vocab_size=text["vocab_size"],
    )


def _check_architecture(config: Mapping[str, Any]) -> None:
    """Refuses everything whose arithmetic the native model would not repeat."""
    if config.get("model_type") == "internvl":
        raise ConfigError(
            "This checkpoint is in the native format already (model_type 'internvl'); use it as it is."
        )
    if config.get("model_type") != "internvl_chat":
        raise ConfigError(
            f"Expected model_type 'internvl_chat' in config.json, got {config.get('model_type')!r}."
        )
    text = config.get("llm_config", {})
    required = {
        "llm_config.architectures": (text.get("architectures"), ["InternLM2ForCausalLM"]),
        "select_layer": (config.get("select_layer", -1), -1),
        "ps_version": (config.get("ps_version", "v1"), "v2"),
        "use_backbone_lora": (config.get("use_backbone_lora", 0), 0),
        "use_llm_lora": (config.get("use_llm_lora", 0), 0),
    }
    for key, (got, expected) in required.items():
        if got != expected:
            raise ConfigError(
                f"Expected {key} {expected!r} in config.json, got {got!r}. The native format can't express it."
            )


def _vision_config(config: Mapping[str, Any]) -> dict[str, Any]:
    vision = config["vision_config"]
    side = config.get("force_image_size") or vision["image_size"]
    eps = vision.get("layer_norm_eps", 1e-6)
    if vision.get("qk_normalization") and eps != 1e-6:
        raise ConfigError(f"Expected vision_config.layer_norm_eps 1e-6 with qk_normalization, got {eps}.")
    return {
        "model_type": "internvl_vision",
        "hidden_size": vision["hidden_size"],
        "num_hidden_layers": vision["num_hidden_layers"],
        "num_attention_heads": vision["num_attention_heads"],
        "intermediate_size": vision["intermediate_size"],
        "image_size": [side, side],
        "patch_size": [vision["patch_size"], vision["patch_size"]],
        "num_channels": vision.get("num_channels", 3),
        "attention_bias": vision["qkv_bias"],
        "use_qk_norm": vision["qk_normalization"],
        "hidden_act": vision.get("hidden_act", "gelu"),
        "norm_type": vision["norm_type"],
        "layer_norm_eps": eps,
        "layer_scale_init_value": vision.get("initializer_factor", 0.1),
        "initializer_range": vision.get("initializer_range", 0.02),
        "attention_dropout": 0.0,
        "projection_dropout": 0.0,
        "hidden_dropout_prob": 0.0,
        "use_absolute_position_embeddings": True,
        "use_mask_token": False,
        "use_mean_pooling": True,
    }


def _text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    text = config["llm_config"]
    bias = bool(text.get("bias", True))
    heads = text["num_attention_heads"]
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": text.get("rope_theta", 10000)}
    scaling = text.get("rope_scaling")
    if scaling:
        rope |= {"rope_type": scaling["type"], "factor": float(scaling["factor"])}
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": text["vocab_size"],
        "hidden_size": text["hidden_size"],
        "intermediate_size": text["intermediate_size"],
        "num_hidden_layers": text["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": text.get("num_key_value_heads") or heads,
        "head_dim": text["hidden_size"] // heads,
        "hidden_act": text.get("hidden_act", "silu"),
        "max_position_embeddings": text.get("max_position_embeddings", 2048),
        "rms_norm_eps": text.get("rms_norm_eps", 1e-6),
        "rope_parameters": rope,
        "attention_bias": bias,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "use_cache": True,
    }


Pair = tuple[str, Shape, tuple[Target, ...], Split | None]
"""Original name, its shape, the native tensors made of it, and how its rows split."""


def _same(source: str, target: str, shape: Shape) -> Pair:
    return source, shape, (Target(target, shape),), None


def _linear(source: str, target: str, shape: Shape, *, bias: bool = True) -> Iterator[Pair]:
    yield _same(f"{source}.weight", f"{target}.weight", shape)
    if bias:
        yield _same(f"{source}.bias", f"{target}.bias", shape[:1])


def _fused(source: str, target: str, split: Split, width: int, *, bias: bool) -> Iterator[Pair]:
    for kind, tail in (("weight", (width,)), ("bias", ())) if bias else (("weight", (width,)),):
        parts: tuple[Part, ...] = ("q", "k", "v")
        targets = tuple(
            Target(f"{target}.{part}_proj.{kind}", (split.num_rows(part), *tail), part) for part in parts
        )
        yield f"{source}.{kind}", (split.num_rows("all"), *tail), targets, split


def _vision_tensors(vision: Mapping[str, Any]) -> Iterator[Pair]:
    width, mlp = vision["hidden_size"], vision["intermediate_size"]
    side, patch = vision["image_size"][0], vision["patch_size"][0]
    source, target = "vision_model.embeddings", "vision_tower.embeddings"
    yield _same(f"{source}.class_embedding", f"{target}.cls_token", (1, 1, width))
    yield _same(
        f"{source}.position_embedding", f"{target}.position_embeddings", (1, (side // patch) ** 2 + 1, width)
    )
    patch_shape = (width, vision["num_channels"], patch, patch)
    yield from _linear(f"{source}.patch_embedding", f"{target}.patch_embeddings.projection", patch_shape)
    norm_has_bias = vision["norm_type"] == "layer_norm"
    for i in range(vision["num_hidden_layers"]):
        a, b = f"vision_model.encoder.layers.{i}", f"vision_tower.encoder.layer.{i}"
        split = Split(1, 1, width)
        yield from _fused(f"{a}.attn.qkv", f"{b}.attention", split, width, bias=vision["attention_bias"])
        if vision["use_qk_norm"]:
            yield _same(f"{a}.attn.q_norm.weight", f"{b}.attention.q_norm.weight", (width,))
            yield _same(f"{a}.attn.k_norm.weight", f"{b}.attention.k_norm.weight", (width,))
        yield from _linear(f"{a}.attn.proj", f"{b}.attention.projection_layer", (width, width))
        yield from _linear(f"{a}.mlp.fc1", f"{b}.mlp.fc1", (mlp, width))
        yield from _linear(f"{a}.mlp.fc2", f"{b}.mlp.fc2", (width, mlp))
        yield from _linear(f"{a}.norm1", f"{b}.layernorm_before", (width,), bias=norm_has_bias)
        yield from _linear(f"{a}.norm2", f"{b}.layernorm_after", (width,), bias=norm_has_bias)
        yield _same(f"{a}.ls1", f"{b}.lambda_1", (width,))
        yield _same(f"{a}.ls2", f"{b}.lambda_2", (width,))


def _projector_tensors(
    config: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any]
) -> Iterator[Pair]:
    shuffled = vision["hidden_size"] * math.floor(1 / config.get("downsample_ratio", 0.5)) ** 2
    width, target = text["hidden_size"], "multi_modal_projector"
    yield from _linear("mlp1.0", f"{target}.layer_norm", (shuffled,))
    yield from _linear("mlp1.1", f"{target}.linear_1", (width, shuffled))
    yield from _linear("mlp1.3", f"{target}.linear_2", (width, width))


def _text_tensors(text: Mapping[str, Any]) -> Iterator[Pair]:
    width, mlp, vocabulary = text["hidden_size"], text["intermediate_size"], text["vocab_size"]
    groups, bias = text["num_key_value_heads"], text["attention_bias"]
    split = Split(groups, text["num_attention_heads"] // groups, text["head_dim"])
    source, target = "language_model.model", "language_model.model"
    yield _same(f"{source}.tok_embeddings.weight", f"{target}.embed_tokens.weight", (vocabulary, width))
    for i in range(text["num_hidden_layers"]):
        a, b = f"{source}.layers.{i}", f"{target}.layers.{i}"
        yield from _fused(f"{a}.attention.wqkv", f"{b}.self_attn", split, width, bias=bias)
        yield from _linear(f"{a}.attention.wo", f"{b}.self_attn.o_proj", (width, width), bias=bias)
        yield from _linear(f"{a}.feed_forward.w1", f"{b}.mlp.gate_proj", (mlp, width), bias=False)
        yield from _linear(f"{a}.feed_forward.w3", f"{b}.mlp.up_proj", (mlp, width), bias=False)
        yield from _linear(f"{a}.feed_forward.w2", f"{b}.mlp.down_proj", (width, mlp), bias=False)
        yield _same(f"{a}.attention_norm.weight", f"{b}.input_layernorm.weight", (width,))
        yield _same(f"{a}.ffn_norm.weight", f"{b}.post_attention_layernorm.weight", (width,))
    yield _same(f"{source}.norm.weight", f"{target}.norm.weight", (width,))
    yield _same("language_model.output.weight", "language_model.lm_head.weight", (vocabulary, width))
