"""Scores a model on held-out episodes while it trains: `validate`, `ValidationScores`."""

__all__ = ["ValidationScores", "validate"]

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.data.labels import pair_percent
from vlac_gym.extras import needs
from vlac_gym.train_nano.batches import FrameBank, PromptBook, TokenBatch
from vlac_gym.train_nano.labels import FrameTable
from vlac_gym.train_nano.losses import reply_logits

with needs("Training nano", "vlac"):
    import torch

THRESHOLD = 0.9
_BATCH = 512
_GAP_FRAMES = 3


@dataclass(frozen=True)
class ValidationScores:
    """Scores of one validation.

    Attributes:
        f1: Of done at the wrapper's default threshold, over all frames.
        false_stop_rate: Share of the episodes without success that have a frame judged done.
        miss_rate: Share of the episodes with success without a frame judged done from the success on.
        pair_error: Mean absolute error of progress, in percent, over pairs three kept frames apart.
        loss: Cross-entropy of done.
    """

    f1: float
    false_stop_rate: float
    miss_rate: float
    pair_error: float
    loss: float

    @property
    def score(self) -> float:
        """What the best checkpoint is chosen by; higher is better."""
        return self.f1 - self.false_stop_rate - self.miss_rate - self.pair_error / 100.0

    def as_dict(self) -> dict[str, float]:
        """For logs."""
        return asdict(self) | {"score": self.score}


def validate(model: Any, bank: FrameBank, table: FrameTable, prompts: PromptBook) -> ValidationScores:
    """Judges every frame, and pairs of neighbouring frames, of the validation episodes."""
    model.eval()
    with torch.inference_mode():
        probs = _done_probs(model, bank, table, prompts)
        pair_error = _pair_error(model, bank, table, prompts)
    model.train()
    said, truth = probs >= THRESHOLD, table.success
    hits = float((said & truth).sum())
    f1 = 2 * hits / max(1.0, float(said.sum() + truth.sum()))
    clipped = np.clip(np.where(truth, probs, 1 - probs), 1e-6, 1.0)
    stops, misses = _episode_rates(table, said)
    return ValidationScores(f1, stops, misses, pair_error, float(-np.log(clipped).mean()))


def _autocast(batch: TokenBatch) -> torch.autocast:
    """As in training: bfloat16 on a GPU; a CPU without instructions for it takes many times as long."""
    device = batch.ids.device.type
    return torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda")


def _done_probs(model: Any, bank: FrameBank, table: FrameTable, prompts: PromptBook) -> NDArray[np.float32]:
    no, yes = prompts.number_ids[0], prompts.number_ids[1]
    parts = []
    for start in range(0, len(table.task), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(table.task)))
        batch = prompts.done_batch(table.task[rows], table.success[rows])
        with _autocast(batch):
            logits = reply_logits(model, batch, bank.pictures(rows, augment=False))
        both = torch.stack([logits[:, 0, no], logits[:, 0, yes]], dim=1)
        parts.append(both.softmax(dim=1)[:, 1].cpu().numpy())
    return np.concatenate(parts)


def _pair_error(model: Any, bank: FrameBank, table: FrameTable, prompts: PromptBook) -> float:
    same_episode = table.episode[:-_GAP_FRAMES] == table.episode[_GAP_FRAMES:]
    rows = np.flatnonzero(same_episode & table.has_progress[:-_GAP_FRAMES])
    truth = pair_percent(table.goal_progress[rows], table.goal_progress[rows + _GAP_FRAMES])
    errors = []
    for start in range(0, len(rows), _BATCH):
        part = slice(start, start + _BATCH)
        batch = prompts.pair_batch(table.task[rows[part]], truth[part])
        pictures = torch.stack(
            [
                bank.pictures(rows[part], augment=False),
                bank.pictures(rows[part] + _GAP_FRAMES, augment=False),
            ],
            dim=1,
        ).flatten(0, 1)
        with _autocast(batch):
            logits = reply_logits(model, batch, pictures)
        errors.append(np.abs(prompts.expected_percent(logits).cpu().numpy() - truth[part]))
    return float(np.concatenate(errors).mean()) if errors else 0.0


def _episode_rates(table: FrameTable, said: NDArray[np.bool_]) -> tuple[float, float]:
    """False stops among the episodes without success, misses among those with."""
    stops, misses = [], []
    for episode in np.unique(table.episode):
        rows = np.flatnonzero(table.episode == episode)
        holds = np.flatnonzero(table.success[rows])
        if holds.size:
            misses.append(not said[rows[holds[0] :]].any())
        else:
            stops.append(bool(said[rows].any()))
    return float(np.mean(stops)) if stops else 0.0, float(np.mean(misses)) if misses else 0.0
