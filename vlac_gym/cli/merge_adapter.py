"""`vlac-gym merge-adapter`: a LoRA adapter and its base become one checkpoint."""

__all__ = ["Args", "run"]

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from vlac_gym.extras import needs

with needs("The command line", "cli"):
    import tyro


@dataclass(frozen=True)
class Args:
    """Arguments of the command."""

    base: str
    """Folder of the base checkpoint (native Hugging Face format, safetensors), or its id on the Hugging Face Hub."""
    adapter: str
    """Folder of the LoRA adapter (adapter_config.json and adapter_model.safetensors), or its id on the hub."""
    target: Annotated[Path, tyro.conf.arg(name="to")]
    """Folder to write; must be absent or empty."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """How the merged weights are stored; they are merged in float32."""
    on_base_mismatch: Literal["refuse", "warn"] = "refuse"
    """What to do if the adapter's config names a base of another folder name."""


def run(args: Args) -> int:
    """Merges and says what was written."""
    with needs("Merging an adapter", "merge"):
        from vlac_gym.training.merge_adapter import merge_adapter
    done = merge_adapter(
        args.base, args.adapter, args.target, dtype=args.dtype, on_base_mismatch=args.on_base_mismatch
    )
    print(
        f"{done.directory}: {done.num_adapted} modules merged, stored as {done.dtype}; on a probe ({done.probe}) "
        f"logits differ from base + adapter by {done.max_difference:.1e}, from the base by {done.adapter_effect:.1e}"
    )
    return 0
