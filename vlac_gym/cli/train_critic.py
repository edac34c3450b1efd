"""`vlac-gym train-critic`: trains the nano critic from recorded episodes."""

__all__ = ["Args", "run"]

import logging
from dataclasses import dataclass, field
from pathlib import Path

from vlac_gym.critic.nano.recipe import TrainRecipe
from vlac_gym.errors import DependencyNotInstalled


@dataclass
class Args:
    """Arguments of `vlac-gym train-critic`."""

    data: Path
    """Folder of episodes, as `vlac-gym collect` writes them."""
    out: Path
    """Folder of the run; an interrupted run there is resumed."""
    device: str | None = None
    """`cuda` or `cpu`; the first GPU by default."""
    recipe: TrainRecipe = field(default_factory=TrainRecipe)
    """Settings of the training; the defaults are those of the shipped critic's first stage."""


def run(args: Args) -> int:
    """Trains, and prints where the checkpoint is."""
    try:
        from vlac_gym.critic.nano.trainer import train_nano
    except ImportError as e:
        raise DependencyNotInstalled(
            'Training needs torch and transformers. Run: pip install "vlac-gym[vlac]"'
        ) from e
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    checkpoint = train_nano(args.data, args.out, args.recipe, device=args.device)
    print(f'Trained. Use it with make_critic("transformers:{checkpoint}").')
    return 0
