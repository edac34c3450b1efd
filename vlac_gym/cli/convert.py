"""`vlac-gym convert`: VLAC's own checkpoint to the native Hugging Face format."""

__all__ = ["Args", "run"]

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vlac_gym.critic.vlac.checkpoints import find_checkpoint
from vlac_gym.critic.vlac.convert import convert_checkpoint
from vlac_gym.extras import needs

with needs("The command line", "cli"):
    import tyro


@dataclass(frozen=True)
class Args:
    """Arguments of the command."""

    source: Annotated[str, tyro.conf.arg(name="from")]
    """Directory of the original checkpoint (config.json, safetensors shards, tokenizer), or its id on the Hugging Face
    Hub, OWNER/NAME or OWNER/NAME@REVISION."""
    target: Annotated[Path, tyro.conf.arg(name="to")]
    """Directory to write; must be absent or empty."""


def run(args: Args) -> int:
    """Converts and says what was written."""
    done = convert_checkpoint(find_checkpoint(args.source, convert=False).folder, args.target)
    print(
        f"{done.directory}: {done.num_source_tensors} tensors -> {done.num_target_tensors}, "
        f"{done.num_bytes / 1e9:.3f} GB, whole numbers below {done.single_token_numbers} are one token each"
    )
    print(f"use it with: vlac-gym score … --critic transformers:{done.directory}")
    return 0
