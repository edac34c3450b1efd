"""Which episode an env of RLinf starts next: `ResetStates`, `ResetState`, `task_trials`. numpy only.

RLinf numbers an env's starts: state id = all trials of the tasks before + trial. Training draws ids or walks a
shuffled list of them; evaluation walks the tasks in turn, each worker its share, every state once.
"""

__all__ = ["ResetState", "ResetStates", "task_trials"]

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from verl_env_adapter.common.settings import EnvSettings
from verl_env_adapter.common.start_states import start_counts
from vlac_gym.checks import check_choice
from vlac_gym.errors import ConfigError

OTHER_ENV_STARTS = 1000
"""Starts of an env without initial states of its own: its seeds 0..999."""


@dataclass(frozen=True)
class ResetState:
    """How one episode begins.

    Attributes:
        state_id: RLinf's number of it.
        task_id: LIBERO's task, None for other envs.
        init_state_id: LIBERO's initial state, None for other envs.
        seed: The env's seed; the same for the same state id, seed and visit.
    """

    state_id: int
    task_id: int | None
    init_state_id: int | None
    seed: int


def task_trials(env: EnvSettings) -> list[tuple[int | None, int]]:
    """(task id, number of starts) of the settings' tasks.

    Raises:
        ConfigError: The suite has no such task, or it was not exported for worlds.
        DependencyNotInstalled: LIBERO is needed and not installed.
    """
    if not env.is_libero:
        return [(None, OTHER_ENV_STARTS)]
    counts = start_counts(env)
    chosen = env.tasks if env.tasks is not None else tuple(counts)
    for task_id in chosen:
        if task_id not in counts:
            raise ConfigError(
                f"Expected env.tasks of {env.suite} in 0..{len(counts) - 1}, got {task_id}. See: vlac-gym tasks"
            )
    return [(task_id, counts[task_id]) for task_id in chosen]


class ResetStates:
    """Deals out starts to the groups of one env worker's stage.

    A group's envs start alike, with the same seed: that is what GRPO compares. RLinf multiplies its seed by
    the number of envs that happen to be reset together instead.

    Args:
        trials: See `task_trials`.
        group_size: Envs per group.
        share: This stage's number, and how many there are: env workers times stages.
        seed: RLinf's ``env.seed``, the same for all ranks.
        order: Training draws states or walks them `shuffled`; evaluation plays each `once`, tasks in turn.
        fixed_id: Always this state; None for no such wish.
        trials_played: Only these of each task's trials are dealt out, which keep their numbers; None for all.
        task_id: Only this task's are dealt out, which keep their numbers; None for all.

    Raises:
        ConfigError: Another `order`, `fixed_id` is no state that is dealt out, or `trials_played` names a trial that a
            task does not have.
    """

    def __init__(
        self,
        trials: Sequence[tuple[int | None, int]],
        *,
        group_size: int = 1,
        share: tuple[int, int] = (0, 1),
        seed: int = 0,
        order: Literal["drawn", "shuffled", "once"] = "drawn",
        fixed_id: int | None = None,
        trials_played: Collection[int] | None = None,
        task_id: int | None = None,
    ) -> None:
        check_choice("order", order, ("drawn", "shuffled", "once"))
        self._states = [(task, trial) for task, count in trials for trial in range(count)]
        if fixed_id is not None and not 0 <= fixed_id < len(self._states):
            raise ConfigError(
                f"Expected specific_reset_id in 0..{len(self._states) - 1} (tasks × trials), got {fixed_id}."
            )
        if fixed_id is not None and task_id not in (None, self._states[fixed_id][0]):
            raise ConfigError(
                f"Expected no specific_reset_id where worlds of several tasks play, got {fixed_id} of task "
                f"{self._states[fixed_id][0]}: a world keeps its task. Name one task in env.tasks."
            )
        for task, count in trials:
            if trials_played is not None and not all(trial < count for trial in trials_played):
                raise ConfigError(
                    f"Expected env.init_states in 0..{count - 1} for task {task}, got {max(trials_played)}."
                )
        self._played = [
            i
            for i, (task, trial) in enumerate(self._states)
            if (trials_played is None or trial in trials_played) and task_id in (None, task)
        ]
        self._group_size = group_size
        self._share = share
        self._seed = seed
        self._order = order
        self._fixed_id = fixed_id
        self._rng = np.random.default_rng([seed, share[0]] if task_id is None else [seed, share[0], task_id])
        # The same on every rank, so that their shares of the shuffled list do not overlap.
        self._shuffles = np.random.default_rng(0)
        self._visits = 0
        self._ids: list[int] = []
        self._trials = trials
        self.restart()

    def restart(self) -> None:
        """Begins the list again: an evaluation plays the same starts every time."""
        if self._order == "once":
            self._visits = 0
        self._ids = self._list()

    def next_groups(self, num_groups: int) -> list[ResetState | None]:
        """The starts of `num_groups` whole groups, `group_size` equal ones each; None once all were dealt."""
        starts: list[ResetState | None] = []
        for state_id in self._take(num_groups):
            self._visits += 1
            start = None if state_id is None else self._start(state_id)
            starts += [start] * self._group_size
        return starts

    def start_of(self, state_id: int) -> ResetState:
        """The start that RLinf names by number.

        Raises:
            ConfigError: There is no such state.
        """
        if not 0 <= state_id < len(self._states):
            raise ConfigError(f"Expected a reset state id in 0..{len(self._states) - 1}, got {state_id}.")
        return self._start(state_id)

    def _start(self, state_id: int) -> ResetState:
        task_id, trial = self._states[state_id]
        if task_id is None:
            return ResetState(state_id, None, None, seed=trial)
        words: NDArray[Any] = np.random.SeedSequence([self._seed, state_id, self._visits]).generate_state(1)
        return ResetState(state_id, task_id, trial, seed=int(words[0]) >> 1)

    def _take(self, count: int) -> list[int | None]:
        if self._fixed_id is not None:
            return [self._fixed_id] * count
        if self._order == "drawn":
            return [self._played[i] for i in self._rng.integers(len(self._played), size=count)]
        taken: list[int | None] = []
        while len(taken) < count:
            if not self._ids and self._order == "once":
                return taken + [None] * (count - len(taken))
            if not self._ids:
                self._ids = self._list()
            taken.append(self._ids.pop(0))
        return taken

    def _list(self) -> list[int]:
        rank, num_ranks = self._share
        if self._order == "once":
            return self._tasks_in_turn()[rank::num_ranks]
        order: list[int] = self._shuffles.permutation(self._played).tolist()
        while len(order) < num_ranks:  # at least one for each rank
            order += order
        return order[rank::num_ranks]

    def _tasks_in_turn(self) -> list[int]:
        first = np.cumsum([0] + [count for _, count in self._trials])[:-1].tolist()
        longest = max(count for _, count in self._trials)
        played = set(self._played)
        return [
            start + trial
            for trial in range(longest)
            for start, (_, count) in zip(first, self._trials, strict=True)
            if trial < count and start + trial in played
        ]
