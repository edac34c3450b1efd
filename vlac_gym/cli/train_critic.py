"""`vlac-gym train-critic`: trains the nano critic from recorded episodes."""

__all__ = ["Args", "run"]

from dataclasses import dataclass, field
from pathlib import Path

from vlac_gym.cli.progress import training_progress
from vlac_gym.extras import needs
from vlac_gym.train_nano.recipe import TrainRecipe


@dataclass
class Args:
    """Arguments of `vlac-gym train-critic`."""

    data: Path
    """Folder of episodes, as `vlac-gym collect` writes them."""
    out: Path
    """Folder of the run, new or empty, unless --resume."""
    resume: bool = False
    """Continue the run that --out holds, with the same recipe; its number of steps may rise."""
    device: str | None = None
    """`cuda` or `cpu`; the first GPU by default."""
    recipe: TrainRecipe = field(default_factory=TrainRecipe)
    """Settings of the training; the defaults are those of the shipped critic's first stage."""


def run(args: Args) -> int:
    """Trains, and prints where the checkpoint is."""
    with needs("Training", "vlac"):
        from vlac_gym.train_nano.trainer import train_nano
    with training_progress(args.recipe.steps) as on_step:
        checkpoint = train_nano(
            args.data, args.out, args.recipe, device=args.device, resume=args.resume, on_step=on_step
        )
    print(
        f'Trained. Use it with --critic "transformers:{checkpoint}?reading=exact", or that spec in make_critic.'
    )
    return 0
