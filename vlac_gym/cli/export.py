"""`vlac-gym export`: turns recorded episodes into data for ms-swift fine-tuning or LeRobot behaviour cloning."""

__all__ = ["Args", "run"]

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.data.export_lerobot import LEROBOT_VERSION, export_lerobot
from vlac_gym.data.export_ms_swift import SwiftOptions, export_ms_swift
from vlac_gym.errors import ConfigError
from vlac_gym.frames.convention import ImageConvention
from vlac_gym.specs.ids import parse_ids

_ANY = 1_000_000  # larger than any initial state's number


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to export, and where to write."""

    format: Literal["ms-swift", "lerobot"]
    """ms-swift: JSONL of VLAC's prompts and answers. lerobot: demonstrations, dataset format v3.0."""
    episodes: Path
    """Folder of `vlac-gym collect`."""
    out: Path
    """New or empty folder to write to."""
    held_out_init_states: str | None = None
    """ms-swift: initial states whose episodes go to val.jsonl, e.g. 40-49."""
    done_per_episode: int = 8
    """ms-swift: done prompts wanted of each episode."""
    pairs_per_episode: int = 6
    """ms-swift: pairs of each episode, each in both orders."""
    mismatch_share: float = 0.05
    """ms-swift: share of prompts that name another task."""
    camera: str | None = None
    """ms-swift: recorded camera; default: the first."""
    seed: int = 0
    """ms-swift: seed of the draws."""
    image_convention: Literal["upright", "raw_rotated_180"] = "upright"
    """lerobot: upright as recorded, or raw_rotated_180 (mirrored), as the LIBERO sets published for LeRobot."""


_ONLY_FOR = {
    "ms-swift": (
        "held_out_init_states",
        "done_per_episode",
        "pairs_per_episode",
        "mismatch_share",
        "camera",
        "seed",
    ),
    "lerobot": ("image_convention",),
}
"""Format -> the options that say nothing to the other one."""


def run(args: Args) -> int:
    """Runs the command; see `vlac-gym export --help`."""
    _refuse_options_of_the_other_format(args)
    dataset = EpisodeDataset.open(args.episodes)
    if args.format == "lerobot":
        convention = ImageConvention(args.image_convention)
        count = export_lerobot(dataset, args.out, image_convention=convention)
        print(
            f"{count} demonstrations written to {args.out} (LeRobot {LEROBOT_VERSION}, pictures {convention})"
        )
        return 0
    options = SwiftOptions(
        done_per_episode=args.done_per_episode,
        pairs_per_episode=args.pairs_per_episode,
        mismatch_share=args.mismatch_share,
        camera=args.camera,
        seed=args.seed,
    )
    held_out = (
        parse_ids(args.held_out_init_states, _ANY, "initial states") if args.held_out_init_states else ()
    )
    counts = export_ms_swift(dataset, args.out, options, held_out_init_states=held_out)
    for name, kinds in counts.items():
        shown = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
        print(f"{args.out / name}: {sum(kinds.values())} prompts ({shown})")
    folder = shlex.quote(str(args.out.resolve()))
    validation = f" --val_dataset {folder}/val.jsonl" if held_out else ""
    print(f"Fine-tune with: ROOT_IMAGE_DIR={folder} swift sft --dataset {folder}/train.jsonl{validation} …")
    return 0


def _refuse_options_of_the_other_format(args: Args) -> None:
    for owner, names in _ONLY_FOR.items():
        given = [name for name in names if getattr(args, name) != getattr(Args, name)]
        if given and owner != args.format:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ConfigError(
                f"{flags}: only --format {owner} takes this, got --format {args.format}. Leave it out."
            )
