"""What the nano critic is asked and what it should answer: `FrameTable`, `Sampler`. numpy only."""

__all__ = ["FrameTable", "PairDraw", "Sampler"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.data.episodes import Episode
from vlac_gym.data.labels import pair_percent
from vlac_gym.data.verdicts import HAS_VERDICT
from vlac_gym.errors import ConfigError
from vlac_gym.train_nano.recipe import TrainRecipe
from vlac_gym.types import FloatArray

_HARD_STEPS = 20
_MAX_GAP_FRAMES = 40


@dataclass(frozen=True, eq=False)
class FrameTable:
    """The frames of many episodes in one row each.

    Attributes:
        episode: int64 (F,), index of the frame's episode; frames of an episode are neighbours, in order.
        step: int64 (F,), env step.
        task: int64 (F,), index into `tasks`.
        success: bool (F,).
        goal_progress: float32 (F,).
        is_hard: bool (F,), the goal does not hold, but nearly: see `TrainRecipe.hard_share`.
        has_progress: bool (F,), False where a person's verdict is all that is known: no pairs are drawn there.
        tasks: Instruction texts.
        rivals: For each task, the other tasks of its suite, whose instructions serve as mismatches.
    """

    episode: NDArray[np.int64]
    step: NDArray[np.int64]
    task: NDArray[np.int64]
    success: NDArray[np.bool_]
    goal_progress: FloatArray
    is_hard: NDArray[np.bool_]
    has_progress: NDArray[np.bool_]
    tasks: tuple[str, ...]
    rivals: tuple[tuple[int, ...], ...]

    @classmethod
    def build(cls, episodes: Sequence[Episode]) -> "FrameTable":
        """Tabulates the frames of all episodes, in order.

        Raises:
            ConfigError: There is none.
        """
        if not episodes:
            raise ConfigError("Expected at least one episode to train on, got none.")
        suites = sorted({(e.meta.task_suite, e.meta.task) for e in episodes})
        index = {key: i for i, key in enumerate(suites)}
        rivals = tuple(
            tuple(j for j, (suite, text) in enumerate(suites) if suite == own and text != task)
            for own, task in suites
        )
        steps = [np.asarray(e.frame_steps, np.int64) for e in episodes]
        counts = [len(step) for step in steps]
        keys = [index[(e.meta.task_suite, e.meta.task)] for e in episodes]
        return cls(
            episode=np.repeat(np.arange(len(episodes)), counts),
            step=np.concatenate(steps),
            task=np.repeat(np.array(keys), counts),
            success=np.concatenate([e.success[step] for e, step in zip(episodes, steps)]),
            goal_progress=np.concatenate([e.goal_progress[step] for e, step in zip(episodes, steps)]),
            is_hard=np.concatenate([_hard_frames(e) for e in episodes]),
            has_progress=np.repeat([not e.meta.details.get(HAS_VERDICT) for e in episodes], counts),
            tasks=tuple(text for _, text in suites),
            rivals=rivals,
        )


@dataclass(frozen=True, eq=False)
class PairDraw:
    """Pairs to ask about: frame rows `before` and `after`, task of the prompt, and the answer in percent."""

    before: NDArray[np.int64]
    after: NDArray[np.int64]
    task: NDArray[np.int64]
    percent: NDArray[np.int64]


class Sampler:
    """Draws training prompts, each task equally often.

    Args:
        table: The frames.
        recipe: Shares of the kinds.
        rng: Source of the draws.
        num_old: Episodes of the table, from the first, that are not fresh; see `TrainRecipe.fresh_share`.

    Raises:
        ConfigError: No frame shows success, or none shows its absence, or none has a goal progress.
    """

    def __init__(
        self, table: FrameTable, recipe: TrainRecipe, rng: np.random.Generator, num_old: int | None = None
    ) -> None:
        self._table = table
        self._recipe = recipe
        self._rng = rng
        tasks = range(len(table.tasks))
        self._positives = [np.flatnonzero((table.task == t) & table.success) for t in tasks]
        self._negatives = [np.flatnonzero((table.task == t) & ~table.success) for t in tasks]
        self._hard = [np.flatnonzero((table.task == t) & table.is_hard) for t in tasks]
        self._of_task = [np.flatnonzero((table.task == t) & table.has_progress) for t in tasks]
        self._is_fresh = table.episode >= (len(table.episode) if num_old is None else num_old)
        if not any(map(len, self._positives)) or not any(map(len, self._negatives)):
            raise ConfigError("Expected frames with and without success to train on; one kind is missing.")
        if not any(map(len, self._of_task)):
            raise ConfigError(
                "Expected episodes with the simulator's labels among those to train on, for the progress of pairs; got "
                "a person's verdicts alone. Add a folder of `vlac-gym collect`."
            )
        self._ends = np.searchsorted(table.episode, table.episode, side="right")
        self._starts = np.searchsorted(table.episode, table.episode, side="left")

    def draw_done(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """`count` done prompts: frame rows, tasks of the prompts, answers."""
        positives = count // 2
        mismatched = round(count * self._recipe.mismatch_share)
        hard = round((count - positives - mismatched) * self._recipe.hard_share)
        rows = np.concatenate(
            [
                self._draw(self._positives, positives + mismatched),
                self._draw(self._hard, hard),
                self._draw(self._negatives, count - positives - mismatched - hard),
            ]
        )
        tasks = self._table.task[rows].copy()
        answers = self._table.success[rows].copy()
        for i in range(positives, positives + mismatched):
            tasks[i] = self._rival(tasks[i])
            answers[i] = answers[i] and tasks[i] == self._table.task[rows[i]]
        return rows, tasks, answers

    def draw_pairs(self, count: int) -> PairDraw:
        """`count` pairs of frames of one episode each, in either order; a few show one frame twice."""
        rows = self._draw(self._of_task, count)
        gaps = np.rint(np.exp(self._rng.uniform(0, np.log(_MAX_GAP_FRAMES), count))).astype(np.int64)
        gaps[self._rng.random(count) < 0.04] = 0
        others = np.clip(
            rows + gaps * self._rng.choice([-1, 1], count), self._starts[rows], self._ends[rows] - 1
        )
        tasks = self._table.task[rows].copy()
        percent = pair_percent(self._table.goal_progress[rows], self._table.goal_progress[others])
        for i in np.flatnonzero(self._rng.random(count) < self._recipe.mismatch_share / 2):
            rival = self._rival(tasks[i])
            percent[i] = percent[i] if rival == tasks[i] else 0
            tasks[i] = rival
        return PairDraw(rows, others, tasks, percent)

    def state(self) -> dict[str, Any]:
        """Where the draws stand; JSON-serialisable."""
        return dict(self._rng.bit_generator.state)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state`."""
        self._rng.bit_generator.state = dict(state)

    def _draw(self, pools: list[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
        filled = [pool for pool in pools if len(pool)]
        if not filled:
            filled = [pool for pool in self._negatives if len(pool)]
        chosen = self._rng.integers(len(filled), size=count)
        return np.array([self._draw_one(filled[c]) for c in chosen], dtype=np.int64)

    def _draw_one(self, pool: NDArray[np.int64]) -> int:
        if self._recipe.fresh_share:
            wants_fresh = self._rng.random() < self._recipe.fresh_share
            wanted = pool[self._is_fresh[pool] == wants_fresh]
            pool = wanted if len(wanted) else pool
        return int(pool[self._rng.integers(len(pool))])

    def _rival(self, task: int) -> int:
        rivals = self._table.rivals[task]
        return int(self._rng.choice(rivals)) if rivals else int(task)


def _hard_frames(episode: Episode) -> NDArray[np.bool_]:
    """Frames without success but near it in time, or late in an episode that never succeeds."""
    points = np.arange(len(episode.success))
    holds = np.flatnonzero(episode.success)
    if holds.size:
        position = np.searchsorted(holds, points)
        before = np.abs(holds[np.clip(position - 1, 0, holds.size - 1)] - points)
        after = np.abs(holds[np.clip(position, 0, holds.size - 1)] - points)
        near = np.minimum(before, after) <= _HARD_STEPS
    else:
        near = points >= 0.6 * points[-1]
    hard: NDArray[np.bool_] = (near & ~episode.success)[episode.frame_steps]
    return hard
