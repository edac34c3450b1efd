"""`vlac-gym train-critic`: trains the nano critic from recorded episodes."""

__all__ = ["Args", "run"]

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from vlac_gym.cli.held_out_cards import check_held_out, compare_on_held_out
from vlac_gym.cli.progress import training_progress
from vlac_gym.cli.run_metrics import check_dashboards, run_metrics
from vlac_gym.data.verdicts import read_verdicts
from vlac_gym.extras import needs
from vlac_gym.metrics.writer import MetricsWriter
from vlac_gym.report_card.comparison import fallen
from vlac_gym.train_nano.recipe import TrainRecipe


@dataclass
class Args:
    """Arguments of `vlac-gym train-critic`."""

    data: tuple[Path, ...]
    """Folders of episodes, as `vlac-gym collect` writes them; --recipe.fresh-share weighs those after the first."""
    out: Path
    """Folder of the run, new or empty, unless --resume."""
    resume: bool = False
    """Continue the run that --out holds, with the same recipe; its number of steps may rise."""
    verdicts: Path | None = None
    """CSV file with a person's labels (episode_id, success_step) of episodes that no simulator judged."""
    held_out: Path | None = None
    """Folder of episodes for report cards of the critic that the run began with and of the new one, and what fell."""
    device: str | None = None
    """`cuda` or `cpu`; the first GPU by default."""
    tensorboard: bool = False
    """Write numbers for TensorBoard too, into OUT/tensorboard, and into OUT/metrics.jsonl."""
    wandb: str | None = None
    """Send them to this project at Weights & Biases; with WANDB_MODE=offline in the environment, they stay in
    OUT/wandb."""
    recipe: TrainRecipe = field(default_factory=TrainRecipe)
    """Settings of the training; the defaults are those of the shipped critic's first stage."""


def run(args: Args) -> int:
    """Trains, and prints where the checkpoint is; returns 1 if a skill fell on the held-out episodes, else 0."""
    if args.held_out is not None:
        check_held_out(args.held_out)
    check_dashboards(tensorboard=args.tensorboard, wandb=args.wandb)
    with needs("Training", "vlac"):
        from vlac_gym.train_nano.trainer import train_nano
    verdicts = None if args.verdicts is None else read_verdicts(args.verdicts)
    with training_progress(args.recipe.steps) as on_step, ExitStack() as stack:
        writers: list[MetricsWriter | None] = []

        def on_validation(step: int, row: Mapping[str, float]) -> None:
            if not writers:  # only now is the folder known to be this run's
                writers.append(run_metrics(args.out, args, tensorboard=args.tensorboard, wandb=args.wandb))
                if writers[0] is not None:
                    stack.enter_context(writers[0])
            if writers[0] is not None:
                writers[0].write(step, {f"train/{name}": value for name, value in row.items()})

        checkpoint = train_nano(
            args.data, args.out, args.recipe, device=args.device, resume=args.resume, verdicts=verdicts,
            on_step=on_step, on_validation=on_validation,
        )  # fmt: skip
    print(
        f'Trained. Use it with --critic "transformers:{checkpoint}?reading=exact", or that spec in make_critic.'
    )
    return 0 if args.held_out is None else _compare(args, args.held_out, checkpoint)


def _compare(args: Args, held_out: Path, checkpoint: Path) -> int:
    changes = compare_on_held_out(held_out, args.out, checkpoint, args.recipe.start_from, args.device)
    for change in changes:
        before, after = ("–" if v is None else f"{v:.3f}" for v in (change.before, change.after))
        print(f"{before:>8} -> {after:>8}  {change.label}  {change.verdict}")
    print(args.out / ("comparison.html" if changes else "card/index.html"))
    if lost := fallen(changes):
        print(f"{len(lost)} of {len(changes)} numbers fell by more than their interval.", file=sys.stderr)
    return 1 if lost else 0
