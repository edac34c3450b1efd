"""A LoRA adapter put into its base model, as one checkpoint folder: `merge_adapter`, `Merge`. Needs peft."""

__all__ = ["DTYPES", "BaseMismatch", "Dtype", "Merge", "merge_adapter"]

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from vlac_gym import __version__
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.extras import needs
from vlac_gym.files.atomic import write_json
from vlac_gym.files.digest import file_digest
from vlac_gym.files.hub import ModelFolder, find_model
from vlac_gym.files.output_folder import claim_folder

with needs("Merging an adapter", "merge"):
    import peft
    import torch
    import transformers
    from safetensors import safe_open

logger = logging.getLogger(__name__)

Dtype = Literal["float32", "bfloat16", "float16"]
"""How the merged weights are stored."""

DTYPES: tuple[Dtype, ...] = get_args(Dtype)

BaseMismatch = Literal["refuse", "warn"]

_TOLERANCE = 1e-4
"""Largest difference of a logit, merged against base + adapter, over the largest logit; float32 sums differ by less."""

_COPIED = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model",
    "*preprocessor_config.json", "processor_config.json", "chat_template*", "generation_config.json",
)  # fmt: skip
"""Tokenizer, processor and generation files."""


@dataclass(frozen=True)
class Merge:
    """What was merged, as `merge_metadata.json` tells it.

    Attributes:
        directory: The merged checkpoint.
        base_model: The base: its folder, or for a model of the hub `OWNER/NAME@COMMIT`.
        adapter: The adapter, likewise.
        adapter_base_model: The base that the adapter's config names.
        dtype: Of the stored weights.
        num_adapted: Modules that the adapter changes.
        probe: What the outputs were compared on: `text` or `text and image`.
        max_difference: Largest difference of a logit between merged and base + adapter, in float32.
        adapter_effect: Largest difference of a logit that the adapter makes; 0 for one that was never trained.
    """

    directory: Path
    base_model: str
    adapter: str
    adapter_base_model: str | None
    dtype: Dtype
    num_adapted: int
    probe: str
    max_difference: float
    adapter_effect: float


def merge_adapter(
    base: str | Path,
    adapter: str | Path,
    target: str | Path,
    *,
    dtype: Dtype = "float32",
    on_base_mismatch: BaseMismatch = "refuse",
) -> Merge:
    """Writes base + adapter as a Hugging Face folder that transformers and vLLM load without peft.

    Merged in float32 on the CPU, then stored as `dtype`. Tokenizer and processor files are the adapter's where it has
    them, else the base's. Logits of the merged model are compared with those of base + adapter on a probe (a text, for
    InternVL with a picture) before anything is written, and the stored weights with the merged ones, bit for bit. The
    files come to `target` when all are there, config.json last.

    Args:
        base: Folder of the base checkpoint, with safetensors weights, or its id on the hub (`find_model`).
        adapter: Folder of the adapter (`adapter_config.json`, `adapter_model.safetensors`), or its id on the hub.
        target: Folder to write, new or empty.
        dtype: Of the stored weights; `bfloat16` halves the file, and rounds.
        on_base_mismatch: What to do if the adapter's config names a base of another folder name.

    Raises:
        ConfigError: Not such folders, an adapter of another base, modules or shapes that the base lacks, or outputs
            that differ.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    goal = Path(target).expanduser()
    sources = [find_model(Path(path).expanduser()) for path in (base, adapter)]
    origin, addition = (source.folder for source in sources)
    _check_files(origin, addition)
    named = _check_base_name(sources[0], addition, on_base_mismatch)
    with claim_folder(goal, what="the merged checkpoint (--to)"):
        model = _load(origin)
        probe, inputs = _probe(model)
        before = _logits(model, inputs)
        adapted = _with_adapter(model, addition)
        expected = _logits(adapted, inputs)
        num_adapted = sum(isinstance(m, peft.tuners.tuners_utils.BaseTunerLayer) for m in adapted.modules())
        merged = adapted.merge_and_unload(safe_merge=True)
        merge = Merge(
            directory=goal,
            base_model=sources[0].name,
            adapter=sources[1].name,
            adapter_base_model=named,
            dtype=dtype,
            num_adapted=num_adapted,
            probe=probe,
            max_difference=_largest(_logits(merged, inputs) - expected),
            adapter_effect=_largest(expected - before),
        )
        if not merge.max_difference <= _TOLERANCE * max(1.0, _largest(expected)):
            raise ConfigError(
                "Expected the merged model to answer as base + adapter does, its logits differ by "
                f"{merge.max_difference}. Nothing was written. Please report it."
            )
        if merge.adapter_effect == 0:
            logger.warning("the adapter in %s changes nothing on the probe: was it trained?", addition)
        _write(merged.to(getattr(torch, dtype)), merge, (origin, addition))
    return merge


def _check_files(base: Path, adapter: Path) -> None:
    if not (base / "config.json").is_file():
        raise ConfigError(f"Expected a checkpoint folder with config.json for --base, got {str(base)!r}.")
    if not any(base.glob("*.safetensors")):
        raise ConfigError(f"Expected safetensors weights in {base}, found none; .bin files are not read.")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (adapter / name).is_file():
            raise ConfigError(f"Expected an adapter folder with {name} for --adapter, got {str(adapter)!r}.")


def _check_base_name(base: ModelFolder, adapter: Path, on_mismatch: BaseMismatch) -> str | None:
    """The base's name in the adapter's config; only the last part counts: folders move between machines."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA":
        raise ConfigError(
            f"Expected a LoRA adapter in {adapter}, its peft_type is {config.get('peft_type')!r}."
        )
    named = config.get("base_model_name_or_path")
    own = Path(base.repo).name if base.repo is not None else base.folder.resolve().name
    if named and Path(named).name != own:
        message = f"The adapter in {adapter} was trained on {named!r}, and --base is {base.name!r}."
        if on_mismatch == "refuse":
            raise ConfigError(f"{message} If they are the same, say --on-base-mismatch warn.")
        logger.warning(message)
    return named or None


def _load(folder: Path) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (ValueError, OSError) as e:
        raise ConfigError(
            f"transformers can't read {folder} ({str(e).splitlines()[0]}). If it is VLAC's own format, run "
            "vlac-gym convert first."
        ) from e
    [name, *_] = config.architectures or [None]
    kind = getattr(transformers, name or "", transformers.AutoModelForCausalLM)
    return kind.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
    ).eval()


def _with_adapter(model: Any, adapter: Path) -> Any:
    """The model with the adapter, every tensor of which found its place."""
    refusal = f"The adapter in {adapter} does not fit the base"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys")  # refused below
            adapted = peft.PeftModel.from_pretrained(model, adapter, torch_device="cpu").eval()
    except (ValueError, RuntimeError, KeyError) as e:
        raise ConfigError(f"{refusal}: {' '.join(str(e).split())[:500]}") from e
    # False: to decide by itself, peft asks the hub for the base's config.
    places = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    placed = {name: tensor.shape for name, tensor in places.items()}
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        given = {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    # peft may have stored whole embeddings besides, which then replace the base's.
    whole = {name for name, tensor in adapted.state_dict().items() if given.get(name) == tensor.shape}
    if placed != {name: shape for name, shape in given.items() if name in placed or name not in whole}:
        strange, missing = sorted(given.keys() - placed.keys() - whole), sorted(placed.keys() - given.keys())
        raise ConfigError(
            f"{refusal}: {len(strange)} of its tensors have no place there ({', '.join(strange[:2])}), and "
            f"{len(missing)} that its config demands are missing ({', '.join(missing[:2])})."
        )
    return adapted


def _probe(model: Any) -> tuple[str, dict[str, Any]]:
    """The same inputs for the same model: tokens from all over the vocabulary, and for InternVL a picture."""
    config = model.config
    text = config.get_text_config()
    random = torch.Generator().manual_seed(0)
    image_token = getattr(config, "image_token_id", None)
    special = {image_token, getattr(config, "video_token_id", None)}
    tokens = [t for t in torch.randint(text.vocab_size, (32,), generator=random).tolist() if t not in special]
    if config.model_type != "internvl":
        return "text", {"input_ids": torch.tensor([tokens])}
    height, width = config.vision_config.image_size
    picture = torch.randn((1, 3, height, width), generator=random)
    ids = tokens[:4] + [image_token] * config.image_seq_length + tokens[4:]
    return "text and image", {"input_ids": torch.tensor([ids]), "pixel_values": picture}


@torch.no_grad()
def _logits(model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    logits: torch.Tensor = model(**inputs).logits
    return logits.clone()


def _largest(values: torch.Tensor) -> float:
    return float(values.abs().max())


def _write(model: Any, merge: Merge, sources: tuple[Path, Path]) -> None:
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=merge.directory) as scratch:
        done = Path(scratch)
        model.save_pretrained(done)
        _check_stored(model, done)
        for source in sources:  # the adapter's last: it wins
            for file in (file for pattern in _COPIED for file in source.glob(pattern) if file.is_file()):
                shutil.copyfile(file, done / file.name)
        write_json(done / "merge_metadata.json", _facts(merge, sources, done))
        for file in sorted(done.iterdir(), key=lambda file: file.name == "config.json"):
            file.rename(merge.directory / file.name)


def _check_stored(model: Any, folder: Path) -> None:
    stored = type(model).from_pretrained(folder, dtype="auto", local_files_only=True).state_dict()
    meant = model.state_dict()
    wrong = [
        name for name in meant if name not in stored or not torch.equal(stored[name].cpu(), meant[name].cpu())
    ]
    if wrong or stored.keys() != meant.keys():
        raise ConfigError(f"The merged weights read back differently, e.g. {wrong[:2]}. Please report it.")


def _facts(merge: Merge, sources: tuple[Path, Path], done: Path) -> dict[str, Any]:
    values = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(merge).items()}
    return values | {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "vlac_gym": __version__,
            "peft": peft.__version__,
            "transformers": transformers.__version__,
            "torch": str(torch.__version__),
        },
        "base_sha256": _digests(sources[0], "*.safetensors", "config.json"),
        "adapter_sha256": _digests(sources[1], "adapter_*"),
        "target_sha256": _digests(done, "*"),
    }


def _digests(folder: Path, *patterns: str) -> dict[str, str]:
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    return {file.name: file_digest(file) for file in files}
