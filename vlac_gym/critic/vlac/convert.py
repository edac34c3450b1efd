"""Converts VLAC's own checkpoint to the native Hugging Face InternVL format: `convert_checkpoint`, `Conversion`.

No code of the checkpoint is executed, no pickle is read, and no model is built: tensors stream from shard to
shard, one in memory at a time. Every tensor is accounted for before the first byte is written.
"""

__all__ = ["CONVERSION_FORMAT", "Conversion", "convert_checkpoint"]

import importlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlac_gym import __version__
from vlac_gym.critic.vlac.convert_layout import Layout, Target, read_layout
from vlac_gym.critic.vlac.convert_shards import ShardWriter, TensorEntry, read_header, read_rows
from vlac_gym.critic.vlac.convert_tokenizer import ConvertedTokenizer, convert_tokenizer
from vlac_gym.critic.vlac.tiny_checkpoint import processor_files
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.digest import file_digest
from vlac_gym.files.json_objects import read_json_object
from vlac_gym.files.output_folder import claim_folder

CONVERSION_FORMAT = 1
"""Goes up when the same checkpoint is converted to other files."""

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes:
        directory: The native checkpoint.
        num_source_tensors: Tensors read, each exactly once.
        num_target_tensors: Tensors written.
        num_bytes: Bytes of weights.
        single_token_numbers: 0..n-1 are one token each in the tokenizer; VLAC's has 1000.
    """

    directory: Path
    num_source_tensors: int
    num_target_tensors: int
    num_bytes: int
    single_token_numbers: int


def convert_checkpoint(source: str | Path, target: str | Path) -> Conversion:
    """Writes the native form of an InternVL2 chat checkpoint; the same input gives the same bytes.

    Files are moved to the target when all of them are there, config.json last: a conversion that fails or is
    interrupted leaves nothing behind. `conversion.json` in it holds the SHA-256 of every file read and written.

    Args:
        source: Directory with `config.json`, safetensors shards and a tokenizer.
        target: Directory to create; must be absent or empty.

    Raises:
        ConfigError: Not such a checkpoint, a missing, extra or misshapen tensor, or a target in use.
        DependencyNotInstalled: torch, transformers or sentencepiece is missing.
    """
    origin, goal = Path(source).expanduser(), Path(target).expanduser()
    config = _read_config(origin)
    with claim_folder(goal, what="the checkpoint"):
        return _convert(origin, goal, config)


def _convert(origin: Path, goal: Path, config: Mapping[str, Any]) -> Conversion:
    layout = read_layout(config)
    entries = _collect_tensors(origin)
    dtype = _check_tensors(entries, layout)
    tokenizer = convert_tokenizer(origin, layout.vocab_size)
    native = _native_config(layout, tokenizer, dtype)
    _check_architecture(native, layout)
    _check_space(goal, sum(entry.num_bytes for entry in entries.values()))
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=goal) as scratch:
        done = Path(scratch)
        _write_weights(done, entries, layout)
        _write_rest(done, native, tokenizer)
        conversion = _write_report(done, goal, entries, layout, tokenizer, origin)
        for file in sorted(done.iterdir(), key=lambda file: file.name == "config.json"):
            file.rename(goal / file.name)
    return conversion


def _read_config(origin: Path) -> Mapping[str, Any]:
    path = origin / "config.json"
    if not path.is_file():
        raise ConfigError(f"Expected a checkpoint directory with config.json, got {str(origin)!r}.")
    return read_json_object(path)


def _check_space(goal: Path, needed: int) -> None:
    free = shutil.disk_usage(goal).free
    if free < needed * 1.01:
        raise ConfigError(f"Expected {needed / 1e9:.1f} GB of free disk at {goal}, got {free / 1e9:.1f} GB.")


def _collect_tensors(origin: Path) -> dict[str, TensorEntry]:
    """All tensors of all shards, by name."""
    index = origin / _INDEX
    if index.is_file():
        try:
            weight_map = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        except (ValueError, KeyError, TypeError) as e:
            raise ConfigError(f"Expected a weight_map in {index}, which does not parse: {e!r}.") from e
        names = sorted(set(weight_map.values()))
    else:
        weight_map, names = None, [_SINGLE]
    entries: dict[str, TensorEntry] = {}
    for name in names:
        path = origin / name
        if Path(name).name != name or not path.is_file():
            raise ConfigError(
                f"Expected the shard {name!r} in {origin}, got none. Only safetensors are read, no .bin files."
            )
        for tensor, entry in read_header(path).items():
            if tensor in entries:
                raise ConfigError(
                    f"Tensor {tensor!r} is in {entries[tensor].path.name} and in {name}; expected once."
                )
            if weight_map is not None and weight_map.get(tensor) != name:
                raise ConfigError(
                    f"Tensor {tensor!r} is in {name}, but {_INDEX} names {weight_map.get(tensor)!r} for it."
                )
            entries[tensor] = entry
    return entries


def _check_tensors(entries: Mapping[str, TensorEntry], layout: Layout) -> str:
    """Checks that the tensors are exactly those of the layout and of one dtype, which is returned."""
    missing = sorted(layout.sources.keys() - entries.keys())
    extra = sorted(entries.keys() - layout.sources.keys())
    if missing or extra:
        raise ConfigError(
            f"The checkpoint's tensors do not fit its config.json: {_some('missing', missing)}; "
            f"{_some('not expected', extra)}."
        )
    for name, shape in layout.sources.items():
        if entries[name].shape != shape:
            raise ConfigError(f"Expected tensor {name!r} with shape {shape}, got {entries[name].shape}.")
    dtypes = sorted({entry.dtype for entry in entries.values()})
    if len(dtypes) != 1:
        raise ConfigError(f"Expected all tensors of one dtype, got {', '.join(dtypes)}.")
    return _DTYPE_NAMES[dtypes[0]]


def _some(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what}: {', '.join(names[:3])}{more}" if names else f"none {what}"


def _native_config(layout: Layout, tokenizer: ConvertedTokenizer, dtype: str) -> Any:
    config = _import("transformers").InternVLConfig.from_dict(
        layout.config | {"image_token_id": tokenizer.id_of("<IMG_CONTEXT>"), "dtype": dtype}
    )
    config.text_config.bos_token_id = tokenizer.tokenizer.bos_token_id
    config.text_config.eos_token_id = tokenizer.tokenizer.eos_token_id
    config.text_config.pad_token_id = tokenizer.tokenizer.pad_token_id
    return config


def _check_architecture(config: Any, layout: Layout) -> None:
    """Compares the tensors to be written with those that the native model declares, without building weights."""
    torch, transformers = _import("torch"), _import("transformers")
    with torch.device("meta"):
        model = transformers.InternVLForConditionalGeneration(config)
    declared = {_stored_name(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    planned = {target.name: target.shape for targets in layout.targets.values() for target in targets}
    if planned != declared:
        names = sorted(name for name, _ in planned.items() ^ declared.items())
        raise ConfigError(
            f"The installed transformers {transformers.__version__} declares other tensors for this model: "
            f"{_some('different', names)}."
        )


def _stored_name(name: str) -> str:
    """The name in a file for a name in the model: the files of this family keep the older prefixes."""
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    name = name.removeprefix("model.")
    head, dot, tail = name.partition(".")
    return f"{head}.model.{tail}" if head == "language_model" and dot else name


def _write_weights(done: Path, entries: Mapping[str, TensorEntry], layout: Layout) -> None:
    """One shard out for each shard in."""
    shards = sorted({entry.path for entry in entries.values()})
    names = [_SINGLE] if len(shards) == 1 else _shard_names(len(shards))
    weight_map: dict[str, str] = {}
    for shard, name in zip(shards, names):
        sources = [source for source, entry in entries.items() if entry.path == shard]
        targets = {
            target.name: (entries[source].dtype, target.shape)
            for source in sources
            for target in layout.targets[source]
        }
        with ShardWriter(done / name, targets) as writer:
            for source in sources:
                _write_parts(writer, entries[source], layout.targets[source], layout.splits.get(source))
        weight_map |= dict.fromkeys(targets, name)
    if len(names) > 1:
        size = sum(entry.num_bytes for entry in entries.values())
        _write_json(
            done / _INDEX, {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
        )


def _shard_names(count: int) -> list[str]:
    return [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]


def _write_parts(writer: ShardWriter, entry: TensorEntry, targets: tuple[Target, ...], split: Any) -> None:
    rows = read_rows(entry)
    for target in targets:
        writer.write(target.name, rows if split is None else split.rows(target.part, rows))


def _write_rest(done: Path, config: Any, tokenizer: ConvertedTokenizer) -> None:
    config.save_pretrained(done)
    tokenizer.tokenizer.save_pretrained(done)
    for name, content in processor_files(config).items():
        _write_json(done / name, content)
    ids = tokenizer.tokenizer
    stops = sorted({ids.eos_token_id, ids.pad_token_id})
    _write_json(
        done / "generation_config.json",
        {"bos_token_id": ids.bos_token_id, "eos_token_id": stops, "pad_token_id": ids.pad_token_id},
    )
    again = _import("transformers").AutoTokenizer.from_pretrained(done, trust_remote_code=False)
    probe = "<|im_start|>user\nImage-1: <img><IMG_CONTEXT></img>\n42 cups<|im_end|>\n"
    if again(probe)["input_ids"] != ids(probe)["input_ids"]:
        raise ConfigError(
            f"The tokenizer written for {tokenizer.source} reads back differently. Please report it."
        )


def _write_report(
    done: Path,
    goal: Path,
    entries: Mapping[str, TensorEntry],
    layout: Layout,
    tokenizer: ConvertedTokenizer,
    origin: Path,
) -> Conversion:
    read = {entry.path for entry in entries.values()} | {origin / "config.json", tokenizer.source}
    conversion = Conversion(
        directory=goal,
        num_source_tensors=len(entries),
        num_target_tensors=sum(map(len, layout.targets.values())),
        num_bytes=sum(entry.num_bytes for entry in entries.values()),
        single_token_numbers=tokenizer.single_token_numbers,
    )
    content = {
        "format": f"InternVL2 chat -> native InternVL, version {CONVERSION_FORMAT}",
        "vlac_gym": __version__,
        "num_source_tensors": conversion.num_source_tensors,
        "num_target_tensors": conversion.num_target_tensors,
        "num_bytes": conversion.num_bytes,
        "single_token_numbers": conversion.single_token_numbers,
        "source_sha256": {path.name: file_digest(path) for path in sorted(read)},
        "target_sha256": {path.name: file_digest(path) for path in sorted(done.iterdir())},
    }
    _write_json(done / "conversion.json", content)
    return conversion


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _import(name: str) -> Any:
    with needs("Converting", "vlac"):
        return importlib.import_module(name)
