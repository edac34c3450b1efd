"""How the nano critic is built and trained: `NANO_SIZES`, `TrainRecipe`."""

__all__ = ["NANO_NUMBER_LIMIT", "NANO_SIZES", "TrainRecipe"]

from dataclasses import dataclass

from vlac_gym.checks import check_unit
from vlac_gym.critic.vlac.tiny_checkpoint import ModelSizes
from vlac_gym.errors import ConfigError

NANO_SIZES = ModelSizes(
    image_size=224,
    patch_size=14,
    vision_layers=6,
    vision_width=256,
    vision_heads=4,
    vision_mlp=1024,
    text_layers=3,
    text_width=256,
    text_heads=4,
    text_kv_heads=2,
    head_dim=64,
    text_mlp=752,
    max_positions=2048,
)
"""7.98 million parameters: 15.96 MB in float16, and about 4 GFLOP for a done check."""

NANO_NUMBER_LIMIT = 101
"""Whole numbers 0..100 are single tokens; a pair reply needs no others."""


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Settings of one training run; the defaults are those of the shipped critic's first stage (MODEL_CARD.md).

    Attributes:
        steps: Optimiser steps.
        done_batch: Done prompts per step; half of them of frames in which the goal holds.
        pair_batch: Pair prompts per step.
        learning_rate: Peak of a cosine schedule that ends at 1% of it.
        warmup_steps: Linear warm-up.
        weight_decay: AdamW's, on matrices only.
        ema_decay: Of the averaged weights, which are the ones validated and saved.
        pair_weight: Of the pair loss beside the done loss.
        mismatch_share: Share of prompts with another task's instruction, whose answer is 0.
        hard_share: Share of the negatives drawn near the decision: shortly before success or after its loss,
            or at the end of a failed episode.
        fresh_share: Share of the frames drawn from the folders after the first, where they have frames of the kind and
            task: episodes of the policy that the critic failed on, say. 0 draws from all folders alike.
        number_sigma: Spread, in percent, of the target around a pair's number.
        max_shift: Largest shift of a training picture, in source pixels.
        max_jitter: Largest relative change of brightness and contrast.
        reword_share: Share of prompts, mismatches among them, whose instruction is reworded (`rewording.reword`).
            Above 0 a checkpoint is chosen by the mean score under the tasks' own and under other wordings.
        max_relight: Strength, from 0 to 1, of the strongest change of light (`relighting.relight`): colour,
            exposure, gamma, light from a side, a shadow.
        all_views: Train on every view of each episode, and validate on all, as if each had been recorded by itself:
            other lights, the wrist. Otherwise on the first alone. Each view's frames take memory of their own.
        val_init_states: Initial states kept for checkpoint selection.
        validate_every: Steps between validations.
        save_every_s: Seconds between resumable saves.
        start_from: Checkpoint folder whose weights and tokenizer the run begins with, `nano` for the shipped one, or
            None for random weights.
        max_seconds: Stop (resumable) after this many seconds, or None.
        seed: Of weights, samples and augmentation.

    Raises:
        ConfigError: A value is out of its range.
    """

    steps: int = 10_000
    done_batch: int = 160
    pair_batch: int = 64
    learning_rate: float = 6e-4
    warmup_steps: int = 500
    weight_decay: float = 0.05
    ema_decay: float = 0.999
    pair_weight: float = 0.5
    mismatch_share: float = 0.08
    hard_share: float = 0.6
    fresh_share: float = 0.0
    number_sigma: float = 2.0
    max_shift: int = 8
    max_jitter: float = 0.15
    reword_share: float = 0.0
    max_relight: float = 0.0
    all_views: bool = False
    val_init_states: tuple[int, ...] = (36, 37, 38, 39)
    validate_every: int = 1000
    save_every_s: float = 60.0
    start_from: str | None = None
    max_seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "done_batch", "pair_batch", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected {name} >= 1, got {getattr(self, name)}.")
        for name in ("mismatch_share", "hard_share", "fresh_share", "ema_decay", "max_jitter"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"Expected {name} in [0, 1), got {getattr(self, name)}.")
        for name in ("reword_share", "max_relight"):
            check_unit(name, getattr(self, name))
        if self.learning_rate <= 0 or self.number_sigma <= 0:
            raise ConfigError("Expected learning_rate and number_sigma above 0.")
        if not self.val_init_states:
            raise ConfigError("Expected at least one init state in val_init_states.")
