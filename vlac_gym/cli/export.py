"""`vlac-gym export`: turns recorded episodes into data for ms-swift fine-tuning or LeRobot behaviour cloning."""

__all__ = ["Args", "run"]

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlac_gym.data.collect_options import parse_ids
from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.data.export_lerobot import export_lerobot
from vlac_gym.data.export_ms_swift import SwiftOptions, export_ms_swift

_ANY = 1_000_000  # larger than any initial state's number


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to export, and where to write."""

    format: Literal["ms-swift", "lerobot"]
    """ms-swift: JSONL of VLAC's prompts and answers. lerobot: demonstrations, dataset format v3.0."""
    episodes: Path
    """Folder of `vlac-gym collect`."""
    out: Path
    """Folder to write to."""
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


def run(args: Args) -> int:
    """Runs the command; see `vlac-gym export --help`."""
    dataset = EpisodeDataset.open(args.episodes)
    if args.format == "lerobot":
        count = export_lerobot(dataset, args.out)
        print(f"{count} demonstrations written to {args.out} (LeRobot v3.0)")
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
    print(f"Fine-tune with: swift sft --dataset {args.out / 'train.jsonl'} …")
    return 0
