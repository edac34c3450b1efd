"""`vlac-gym make-tiny-checkpoint`: a native InternVL checkpoint of 4 MB with random weights, for tests."""

__all__ = ["Args", "run"]

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Args:
    """Options of `vlac-gym make-tiny-checkpoint`."""

    to: Path
    """Directory to write; must be absent or empty."""
    seed: int = 0
    """Seed of the weights; the same seed writes the same bytes."""


def run(args: Args) -> int:
    """Writes the checkpoint and prints where it lies."""
    from vlac_gym.critic.vlac.tiny_checkpoint import make_tiny_checkpoint

    path = make_tiny_checkpoint(args.to, seed=args.seed)
    size = sum(file.stat().st_size for file in path.iterdir())
    print(f"Wrote a tiny InternVL checkpoint ({size / 1e6:.1f} MB, random weights) to {path}.")
    return 0
