"""Reads and checks a checkpoint directory without loading it: `CheckpointFacts`, `inspect_checkpoint`.

Only JSON and the headers of safetensors files are read, so a wrong directory is refused in milliseconds and
before torch is imported. Format of the header: an unsigned 64-bit length, then that many bytes of JSON
(https://huggingface.co/docs/safetensors).
"""

__all__ = ["CheckpointFacts", "inspect_checkpoint"]

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlac_gym.errors import ConfigError
from vlac_gym.files.json_objects import read_json_object

_ARCHITECTURE = "InternVLForConditionalGeneration"
_TEXT_MODELS = ("llama", "qwen2")
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_EMBEDDING_SUFFIX = "embed_tokens.weight"
_DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "U8": 1, "I8": 1, "BOOL": 1}


@dataclass(frozen=True)
class CheckpointFacts:
    """What the files say.

    Attributes:
        path: The directory.
        config: `config.json`.
        num_parameters: Numbers in all tensors.
        embedding_rows: Rows of the token embedding: the largest vocabulary that fits.
        image_mean: Mean per RGB channel that pictures are normalised with, in [0, 1].
        image_std: Standard deviation per RGB channel, same scale.
    """

    path: Path
    config: dict[str, Any]
    num_parameters: int
    embedding_rows: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]


def inspect_checkpoint(path: str | Path) -> CheckpointFacts:
    """Checks that a directory holds a complete native InternVL checkpoint in safetensors.

    Raises:
        ConfigError: No such directory, no or another config, a shard missing or cut short, no tokenizer.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise ConfigError(f"Expected a checkpoint directory, got {str(path)!r}, which is not a directory.")
    config = _read_json(directory, "config.json")
    _check_architecture(config, directory)
    shapes: dict[str, list[int]] = {}
    for shard in _shards(directory):
        shapes |= _tensor_shapes(shard)
    embeddings = [shape for name, shape in shapes.items() if name.endswith(_EMBEDDING_SUFFIX)]
    if len(embeddings) != 1:
        raise ConfigError(
            f"Expected one token embedding (…{_EMBEDDING_SUFFIX}) in {str(directory)!r}, found {len(embeddings)}."
        )
    if not any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise ConfigError(f"Expected tokenizer.json or tokenizer.model in {str(directory)!r}, found neither.")
    mean, std = _normalisation(directory)
    return CheckpointFacts(
        path=directory,
        config=config,
        num_parameters=sum(math.prod(shape) for shape in shapes.values()),
        embedding_rows=embeddings[0][0],
        image_mean=mean,
        image_std=std,
    )


def _check_architecture(config: dict[str, Any], directory: Path) -> None:
    where = f"in {str(directory / 'config.json')!r}"
    if config.get("model_type") == "internvl_chat":
        raise ConfigError(
            f"Expected a native InternVL checkpoint, got VLAC's original format (internvl_chat) {where}. "
            "Convert it once: vlac-gym convert --from PATH --to PATH"
        )
    architectures = config.get("architectures")
    if config.get("model_type") != "internvl" or architectures not in (None, [_ARCHITECTURE]):
        raise ConfigError(
            f"Expected architecture {_ARCHITECTURE} (model_type 'internvl'), "
            f"got {architectures} (model_type {config.get('model_type')!r}) {where}."
        )
    text_type = config.get("text_config", {}).get("model_type", "qwen2")
    if text_type not in _TEXT_MODELS:
        raise ConfigError(
            f"Expected a language model of type {' or '.join(_TEXT_MODELS)}, got {text_type!r} {where}."
        )
    layer, strategy = (
        config.get("vision_feature_layer", -1),
        config.get("vision_feature_select_strategy", "default"),
    )
    if layer != -1 or strategy != "default":
        raise ConfigError(
            f"Expected vision_feature_layer -1 and select strategy 'default', got {layer} and {strategy!r} {where}."
        )


def _shards(directory: Path) -> list[Path]:
    if (directory / _INDEX).is_file():
        names = sorted(set(_read_json(directory, _INDEX).get("weight_map", {}).values()))
    elif (directory / _SINGLE).is_file():
        names = [_SINGLE]
    else:
        pickles = sorted(
            file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in directory.glob(pattern)
        )
        hint = (
            f" Pickled weights ({', '.join(pickles)}) are never loaded: they can run code." if pickles else ""
        )
        raise ConfigError(f"Expected {_SINGLE} or {_INDEX} in {str(directory)!r}, found neither.{hint}")
    missing = [name for name in names if not (directory / name).is_file()]
    if missing or not names:
        raise ConfigError(
            f"Checkpoint {str(directory)!r} lacks shards that its index names: {', '.join(missing)}."
        )
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise ConfigError(f"Expected shards inside {str(directory)!r}, the index names {', '.join(outside)}.")
    return [directory / name for name in names]


def _tensor_shapes(shard: Path) -> dict[str, list[int]]:
    """Tensor names and shapes of one safetensors file, which must be as long as its header says."""
    size = shard.stat().st_size
    with shard.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if length + 8 > size:
            raise ConfigError(f"Expected a safetensors file, got {str(shard)!r} of {size} bytes, cut short.")
        try:
            header = json.loads(file.read(length))
        except ValueError as e:
            raise ConfigError(
                f"Expected a safetensors file, {str(shard)!r} has no readable header: {e}"
            ) from e
    header.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if 8 + length + end != size:
        raise ConfigError(
            f"Expected {8 + length + end} bytes in {str(shard)!r}, got {size}: the copy is incomplete."
        )
    unknown = {entry["dtype"] for entry in header.values()} - _DTYPE_BYTES.keys()
    if unknown:
        raise ConfigError(f"Expected plain number types in {str(shard)!r}, got {', '.join(sorted(unknown))}.")
    return {name: entry["shape"] for name, entry in header.items()}


def _normalisation(directory: Path) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and std of `preprocessor_config.json`, else ImageNet's, which InternVL is trained with."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    if not (directory / "preprocessor_config.json").is_file():
        return mean, std
    preprocessor = _read_json(directory, "preprocessor_config.json")
    values = preprocessor.get("image_mean", mean), preprocessor.get("image_std", std)
    if any(len(value) != 3 for value in values):
        raise ConfigError(f"Expected three means and stds in {str(directory)!r}, got {values}.")
    (m0, m1, m2), (s0, s1, s2) = values
    return (m0, m1, m2), (s0, s1, s2)


def _read_json(directory: Path, name: str) -> dict[str, Any]:
    file = directory / name
    if not file.is_file():
        raise ConfigError(
            f"Expected {name} in {str(directory)!r}, which has none. Is it a checkpoint directory?"
        )
    return read_json_object(file)
