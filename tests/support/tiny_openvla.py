"""An OpenVLA-OFT checkpoint of 14 million random weights, in SimpleVLA-RL's own classes: `write_tiny_openvla`."""

import json
import string
import subprocess
from pathlib import Path

PAD_TOKEN = 32000
ACTION_RANGE = 0.3


def write_tiny_openvla(folder: Path, checkout: Path) -> None:
    """Writes model, processor and action statistics, and the model's code as the trainer's recipe does.

    Args:
        folder: Empty folder.
        checkout: SimpleVLA-RL, whose `verl` is the one that imports.
    """
    import torch
    from verl.utils.vla_utils.openvla_oft.configuration_prismatic import OpenVLAConfig
    from verl.utils.vla_utils.openvla_oft.modeling_prismatic import OpenVLAForActionPrediction

    config = OpenVLAConfig(
        vision_backbone_id="dinosiglip-vit-so-224px",
        llm_backbone_id="llama2-7b-pure",
        # Of 224 x 224 pictures resized to 32 x 32: 4 patches for each of the two towers.
        timm_model_ids=["vit_tiny_patch16_224", "vit_tiny_patch16_224"],
        image_sizes=[32, 32],
        pad_token_id=PAD_TOKEN,
        use_proprio=False,
        proprio_dim=7,
        text_config={
            "vocab_size": 32064,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "pad_token_id": PAD_TOKEN,
        },
    )
    torch.manual_seed(0)
    OpenVLAForActionPrediction(config).save_pretrained(folder)
    _processor().save_pretrained(folder)
    statistics = {"q01": [-ACTION_RANGE] * 7, "q99": [ACTION_RANGE] * 7, "mask": [True] * 6 + [False]}
    (folder / "dataset_statistics.json").write_text(
        json.dumps(
            {"libero_spatial_no_noops": {"action": {**statistics, "min": [-1.0] * 7, "max": [1.0] * 7}}}
        )
    )
    subprocess.run(
        ["bash", str(checkout / "examples/overwrite_vla_ckpt_utils.sh"), str(folder)],
        check=True,
        capture_output=True,
    )


def _processor():
    from transformers import AutoImageProcessor
    from verl.utils.vla_utils.openvla_oft.configuration_prismatic import OpenVLAConfig
    from verl.utils.vla_utils.openvla_oft.processing_prismatic import (
        PrismaticImageProcessor,
        PrismaticProcessor,
    )

    AutoImageProcessor.register(OpenVLAConfig, PrismaticImageProcessor, exist_ok=True)
    images = PrismaticImageProcessor(
        use_fused_vision_backbone=True,
        image_resize_strategy="resize-naive",
        input_sizes=[(3, 32, 32)] * 2,
        interpolations=["bicubic"] * 2,
        means=[(0.5, 0.5, 0.5)] * 2,
        stds=[(0.5, 0.5, 0.5)] * 2,
    )
    return PrismaticProcessor(images, _tokenizer())


def _tokenizer():
    """A token for each printable character, with Llama's ids of the special ones."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {"<unk>": 0, "<s>": 1, "</s>": 2, "<PAD>": PAD_TOKEN}
    letters = {letter: number for number, letter in enumerate(string.printable, start=len(special) - 1)}
    unused = {f"<{number}>": number for number in range(len(special) - 1 + len(letters), PAD_TOKEN)}
    tokenizer = Tokenizer(models.WordLevel({**special, **letters, **unused}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<PAD>",
    )
