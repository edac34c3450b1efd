"""Settings of behaviour cloning: `CloneRecipe`."""

__all__ = ["CloneRecipe"]

from dataclasses import dataclass

from vlac_gym.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CloneRecipe:
    """What to learn from, and how.

    Raises:
        ConfigError: A value is out of its range.
    """

    demos_per_task: int | None = None
    """Demonstrations of each task, drawn by the seed: N + 1 are the N and one more. Default: all."""
    held_out_init_states: str = "last-fifth"
    """Initial states that only the action error is measured on: last-fifth of those in the data, none, or 40-49."""
    any_episode: bool = False
    """Learn from every episode, also from failures and spoilt ones, not only from honest attempts that succeed."""
    steps: int = 2500
    """Optimiser steps."""
    seed: int = 0
    """Of the first weights, the choice of demonstrations, the batches and the shifts."""
    batch_size: int = 256
    """Decisions per step."""
    learning_rate: float = 5e-4
    """Of AdamW at the start; falls to 0 along a cosine."""
    weight_decay: float = 1e-2
    """Of AdamW."""
    max_shift_px: int = 5
    """Each picture is shifted by up to so many pixels of the policy's own size, both ways."""
    chunk_size: int = 8
    """Actions per decision."""
    image_size: int = 128
    """Side to which the policy averages pictures down, pixels."""
    cameras: tuple[str, ...] = ("agentview", "wrist")
    """Recorded views that the policy sees."""
    save_every_steps: int = 100
    """Steps between checkpoints, each with a line in metrics.jsonl."""

    def __post_init__(self) -> None:
        lowest = {
            "demos_per_task": 1,
            "steps": 1,
            "seed": 0,
            "batch_size": 1,
            "max_shift_px": 0,
            "chunk_size": 1,
            "save_every_steps": 1,
            "weight_decay": 0,
        }
        for name, low in lowest.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise ConfigError(f"Expected {name} >= {low}, got {value}.")
        if not 0 < self.learning_rate < 1:
            raise ConfigError(f"Expected learning_rate above 0 and below 1, got {self.learning_rate}.")
