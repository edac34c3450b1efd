"""Writes small checkpoints in VLAC's own layout, as the published InternVL2 modelling code names its tensors."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

WIDTH, HEADS, KV_HEADS, HEAD_DIM, MLP = 8, 4, 2, 2, 12
VISION_WIDTH, VISION_MLP, SIDE, PATCH = 4, 6, 28, 14
SPECIAL = ("<|im_end|>", "<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>", "<quad>")


def train_sentencepiece(*, add_dummy_prefix: bool = True) -> bytes:
    """A byte-fallback BPE model like InternLM2's; whole numbers below 200 are pieces."""
    import sentencepiece

    lines = [f"n{n}n" for n in range(200)] * 20
    lines += [
        "put a bowl on a plate, a cup on a tray",
        "Check if the robot has completed its task:",
        "+ score - score % : ,",
    ] * 9
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=buffer,
        vocab_size=560,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=add_dummy_prefix,
        minloglevel=2,
    )
    return buffer.getvalue()


def num_pieces(model: bytes) -> int:
    import sentencepiece

    return int(sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size())


def make_config(vocab_size: int) -> dict[str, Any]:
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "downsample_ratio": 0.5,
        "force_image_size": SIDE,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internlm2-chat",
        "vision_config": {
            "hidden_size": VISION_WIDTH,
            "image_size": 448,
            "intermediate_size": VISION_MLP,
            "layer_norm_eps": 1e-6,
            "norm_type": "layer_norm",
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
            "patch_size": PATCH,
            "qk_normalization": False,
            "qkv_bias": True,
        },
        "llm_config": {
            "architectures": ["InternLM2ForCausalLM"],
            "bias": False,
            "hidden_size": WIDTH,
            "intermediate_size": MLP,
            "max_position_embeddings": 64,
            "num_attention_heads": HEADS,
            "num_hidden_layers": 1,
            "num_key_value_heads": KV_HEADS,
            "rms_norm_eps": 1e-5,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "vocab_size": vocab_size,
        },
    }


def make_tensors(vocab_size: int, seed: int = 0) -> dict[str, Any]:
    """Random float32 tensors under the original names."""
    shuffled = 4 * VISION_WIDTH
    positions = (SIDE // PATCH) ** 2 + 1
    vision, text = "vision_model.encoder.layers.0", "language_model.model.layers.0"
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (1, 1, VISION_WIDTH),
        "vision_model.embeddings.position_embedding": (1, positions, VISION_WIDTH),
        "vision_model.embeddings.patch_embedding.weight": (VISION_WIDTH, 3, PATCH, PATCH),
        "vision_model.embeddings.patch_embedding.bias": (VISION_WIDTH,),
        f"{vision}.attn.qkv.weight": (3 * VISION_WIDTH, VISION_WIDTH),
        f"{vision}.attn.qkv.bias": (3 * VISION_WIDTH,),
        f"{vision}.attn.proj.weight": (VISION_WIDTH, VISION_WIDTH),
        f"{vision}.attn.proj.bias": (VISION_WIDTH,),
        f"{vision}.mlp.fc1.weight": (VISION_MLP, VISION_WIDTH),
        f"{vision}.mlp.fc1.bias": (VISION_MLP,),
        f"{vision}.mlp.fc2.weight": (VISION_WIDTH, VISION_MLP),
        f"{vision}.mlp.fc2.bias": (VISION_WIDTH,),
        f"{vision}.norm1.weight": (VISION_WIDTH,),
        f"{vision}.norm1.bias": (VISION_WIDTH,),
        f"{vision}.norm2.weight": (VISION_WIDTH,),
        f"{vision}.norm2.bias": (VISION_WIDTH,),
        f"{vision}.ls1": (VISION_WIDTH,),
        f"{vision}.ls2": (VISION_WIDTH,),
        "mlp1.0.weight": (shuffled,),
        "mlp1.0.bias": (shuffled,),
        "mlp1.1.weight": (WIDTH, shuffled),
        "mlp1.1.bias": (WIDTH,),
        "mlp1.3.weight": (WIDTH, WIDTH),
        "mlp1.3.bias": (WIDTH,),
        "language_model.model.tok_embeddings.weight": (vocab_size, WIDTH),
        f"{text}.attention.wqkv.weight": ((HEADS + 2 * KV_HEADS) * HEAD_DIM, WIDTH),
        f"{text}.attention.wo.weight": (WIDTH, WIDTH),
        f"{text}.feed_forward.w1.weight": (MLP, WIDTH),
        f"{text}.feed_forward.w2.weight": (WIDTH, MLP),
        f"{text}.feed_forward.w3.weight": (MLP, WIDTH),
        f"{text}.attention_norm.weight": (WIDTH,),
        f"{text}.ffn_norm.weight": (WIDTH,),
        "language_model.model.norm.weight": (WIDTH,),
        "language_model.output.weight": (vocab_size, WIDTH),
    }
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_weights(directory: Path, tensors: dict[str, Any], num_shards: int = 2) -> None:
    """Shards with an index, or one file."""
    names = list(tensors)
    if num_shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for i in range(num_shards):
        file = f"model-{i + 1:05d}-of-{num_shards:05d}.safetensors"
        chosen = names[i::num_shards]
        save_file({name: tensors[name] for name in chosen}, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(chosen, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def tokenizer_config(pieces: int) -> dict[str, Any]:
    added = {str(i): {"content": text, "special": True} for i, text in enumerate(("<unk>", "<s>", "</s>"))}
    added |= {str(pieces + i): {"content": text, "special": True} for i, text in enumerate(SPECIAL)}
    return {
        "added_tokens_decoder": added,
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": 8192,
        "pad_token": "</s>",
        "tokenizer_class": "InternLM2Tokenizer",
        "unk_token": "<unk>",
    }


def write_original(
    directory: Path, model: bytes, *, num_shards: int = 2, spare_rows: int = 0
) -> dict[str, Any]:
    """A whole checkpoint; returns its tensors."""
    directory.mkdir(parents=True, exist_ok=True)
    pieces = num_pieces(model)
    vocab_size = pieces + len(SPECIAL) + spare_rows
    (directory / "tokenizer.model").write_bytes(model)
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(pieces)))
    (directory / "config.json").write_text(json.dumps(make_config(vocab_size)))
    # Whoever executes the checkpoint's code fails.
    (directory / "modeling_internvl_chat.py").write_text("raise RuntimeError('executed')\n")
    (directory / "tokenization_internlm2.py").write_text("raise RuntimeError('executed')\n")
    tensors = make_tensors(vocab_size)
    write_weights(directory, tensors, num_shards)
    return tensors
