"""Which tasks to play next: `CurriculumManager`, its `CurriculumConfig`, `Assignment`, `EpisodeResult`, `Curriculum`.

numpy only. `vlac_gym.curriculum.ray_actor` runs the manager in a Ray actor, and
`vlac_gym.wrappers.vector.CurriculumWrapper` plugs either into a vector env.
"""

__all__ = [
    "Assignment",
    "Curriculum",
    "CurriculumConfig",
    "CurriculumManager",
    "EpisodeResult",
    "RESULT_COUNTS",
    "sampling_probabilities",
]

import secrets
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlac_gym.checks import check_choice, check_int, check_unit
from vlac_gym.curriculum.files import read_state, write_state
from vlac_gym.errors import ConfigError

ResultSource = Literal["critic", "simulator"]

RESULT_COUNTS = {
    "credited": "results that moved a task's success rate",
    "abandoned": "assignments given back without a verdict: lost, interrupted or unjudged episodes",
    "duplicate": "results for an assignment that was settled before; ignored",
    "unknown": "results for an assignment that this manager never made, or made before it was restored; ignored",
    "mismatched": "results that name another task than their assignment; the assignment is given back",
    "evicted": "assignments forgotten because more than `max_outstanding` were open",
}
"""What `CurriculumManager.counts` counts."""


@dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """How tasks are chosen and success is remembered.

    Attributes:
        group_size: Copies of one task and initial state that `get_batch` hands out together, >= 1.
        alpha: Weight of the newest result in a task's moving average, in (0, 1].
        temperature: How sharply sampling prefers tasks near 50 % success, above 0; see `sampling_probabilities`.
        floor: Share of the sampling that goes to all tasks alike, in [0, 1]: no task gets less than
            ``floor / number of tasks``.
        prior: A task's success rate before its first result, in [0, 1]; 0.5 has every task tried early.
        source: Whose verdict counts. `simulator` uses the simulator's success, which a training run that is
            meant to do without it must not.
        max_outstanding: Most assignments without a result that are remembered, >= `group_size`.
        seed: Of the draws, >= 0.

    Raises:
        ConfigError: A value is out of range.
    """

    group_size: int = 1
    alpha: float = 0.1
    temperature: float = 0.25
    floor: float = 0.2
    prior: float = 0.5
    source: ResultSource = "critic"
    max_outstanding: int = 100_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("group_size", 1), ("max_outstanding", self.group_size), ("seed", 0)):
            check_int(name, getattr(self, name), low)
        if not 0.0 < self.alpha <= 1.0:
            raise ConfigError(f"Expected alpha in (0, 1], got {self.alpha!r}.")
        if not 0.0 < self.temperature < float("inf"):
            raise ConfigError(f"Expected a finite temperature above 0, got {self.temperature!r}.")
        for name in ("floor", "prior"):
            check_unit(name, getattr(self, name))
        check_choice("result source", self.source, ("critic", "simulator"))


@dataclass(frozen=True)
class Assignment:
    """One episode to play.

    Attributes:
        assignment_id: Names this episode wherever its result is reported; never used twice.
        group_id: The same for the `group_size` copies of one start.
        task_id: Which task.
        init_state_id: Which initial state.
    """

    assignment_id: str
    group_id: str
    task_id: int
    init_state_id: int

    def reset_options(self) -> dict[str, int]:
        """Options for the env's `reset`."""
        return {"task_id": self.task_id, "init_state_id": self.init_state_id}


@dataclass(frozen=True)
class EpisodeResult:
    """How an assigned episode ended.

    Attributes:
        assignment_id: Of its `Assignment`.
        success: The verdict; None if there is none (lost, interrupted, the critic failed): nothing is learnt.
        task_id: The task that the env says it played, checked against the assignment; None skips the check.
    """

    assignment_id: str
    success: bool | None
    task_id: int | None = None


class Curriculum(Protocol):
    """What chooses tasks: `CurriculumManager`, or `RayCurriculum` for many processes."""

    @property
    def config(self) -> CurriculumConfig:
        """The options."""
        ...

    @property
    def task_ids(self) -> tuple[int, ...]:
        """The tasks to choose from."""
        ...

    def get_batch(self, n: int) -> list[Assignment]:
        """See `CurriculumManager.get_batch`."""
        ...

    def report_results(self, results: Sequence[EpisodeResult]) -> None:
        """See `CurriculumManager.report_results`."""
        ...


def sampling_probabilities(success_rates: ArrayLike, temperature: float, floor: float) -> NDArray[np.float64]:
    """How probable each task is: a softmax of its learnability over a uniform floor.

    With success rate p, learnability is ``s = 4 p (1 - p)``: 1 at 50 % and 0 for tasks that never or always
    succeed, proportional to the variance of the outcome, and so to the size of group-relative advantages.
    For K tasks, ``P = floor / K + (1 - floor) * softmax(s / temperature)``. Sampling by p (1 - p) is from
    Rutherford et al., "No Regrets" (arXiv 2408.15099); softmax and floor are ours.

    Args:
        success_rates: (K,), in [0, 1].
        temperature: Above 0; small is greedy, large is uniform.
        floor: In [0, 1].

    Returns:
        float64 (K,), sums to 1.
    """
    rates = np.asarray(success_rates, np.float64)
    scores = 4.0 * rates * (1.0 - rates) / temperature
    weights = np.exp(scores - scores.max())
    shares: NDArray[np.float64] = floor / len(rates) + (1.0 - floor) * weights / weights.sum()
    return shares


class CurriculumManager:
    """Chooses tasks near 50 % success, learning each task's success rate from the results it is given.

    A task's success rate p starts at `prior`, and each result r (0 or 1) moves it: ``p += alpha * (r - p)``.
    `get_batch` draws tasks by `sampling_probabilities`, and an initial state of each uniformly. An assignment is
    settled by its first result; later ones are ignored and counted, see `RESULT_COUNTS`. Safe to use from
    several threads.

    Args:
        task_ids: The tasks, all different.
        num_init_states: Initial states of every task, or of each; >= 1.
        config: The options.

    Raises:
        ConfigError: An argument does not fit.

    Example:
        >>> manager = CurriculumManager([0, 7], 50, CurriculumConfig(group_size=2, alpha=0.5))
        >>> first, second = manager.get_batch(2)
        >>> first.reset_options() == second.reset_options(), first.assignment_id == second.assignment_id
        (True, False)
        >>> manager.report_results([EpisodeResult(first.assignment_id, success=True)])
        >>> manager.success_rates()[first.task_id]
        0.75
    """

    def __init__(
        self,
        task_ids: Sequence[int],
        num_init_states: int | Sequence[int],
        config: CurriculumConfig | None = None,
    ) -> None:
        self._task_ids = tuple(int(task_id) for task_id in task_ids)
        if not self._task_ids or len(set(self._task_ids)) != len(self._task_ids):
            raise ConfigError(f"Expected one or more different task ids, got {list(task_ids)}.")
        counts = (num_init_states,) * len(task_ids) if isinstance(num_init_states, int) else num_init_states
        self._num_init_states = tuple(int(count) for count in counts)
        if len(self._num_init_states) != len(self._task_ids) or min(self._num_init_states) < 1:
            raise ConfigError(
                f"Expected num_init_states as one number >= 1 or {len(self._task_ids)}, got {num_init_states}."
            )
        self._config = config if config is not None else CurriculumConfig()
        self._rates = dict.fromkeys(self._task_ids, float(self._config.prior))
        self._num_results = dict.fromkeys(self._task_ids, 0)
        self._counts = dict.fromkeys(RESULT_COUNTS, 0)
        self._outstanding: dict[str, int] = {}
        self._rng = np.random.default_rng(self._config.seed)
        # Not from the generator: a restored manager draws the same tasks, but under ids of its own, so that a
        # result from before the restore is not credited to an assignment made after it.
        self._run = secrets.token_hex(6)
        self._next_number = 0
        self._lock = threading.Lock()

    @property
    def config(self) -> CurriculumConfig:
        """The options."""
        return self._config

    @property
    def task_ids(self) -> tuple[int, ...]:
        """The tasks to choose from."""
        return self._task_ids

    @property
    def num_init_states(self) -> tuple[int, ...]:
        """Initial states of each task, in the order of `task_ids`."""
        return self._num_init_states

    def get_batch(self, n: int) -> list[Assignment]:
        """Draws episodes to play.

        Args:
            n: How many, a multiple of `group_size`.

        Returns:
            n assignments; each `group_size` neighbours have the same group, task and initial state.

        Raises:
            ConfigError: `n` is not a positive multiple of `group_size`.
        """
        group_size = self._config.group_size
        if n < 1 or n % group_size:
            raise ConfigError(f"Expected n as a multiple of group_size {group_size}, got {n}.")
        with self._lock:
            groups = [self._draw_group() for _ in range(n // group_size)]
        return [assignment for group in groups for assignment in group]

    def report_results(self, results: Sequence[EpisodeResult]) -> None:
        """Credits results to the tasks of their assignments, in the given order; see `EpisodeResult`."""
        with self._lock:
            for result in results:
                self._settle(result)

    def success_rates(self) -> dict[int, float]:
        """Moving average of success by task id; `prior` where there is no result."""
        with self._lock:
            return dict(self._rates)

    def probabilities(self) -> dict[int, float]:
        """The chance of each task id to be drawn next."""
        with self._lock:
            return dict(zip(self._task_ids, self._shares().tolist()))

    def num_results(self) -> dict[int, int]:
        """Credited results by task id."""
        with self._lock:
            return dict(self._num_results)

    def counts(self) -> dict[str, int]:
        """`RESULT_COUNTS`, and `outstanding`: assignments without a result."""
        with self._lock:
            return {**self._counts, "outstanding": len(self._outstanding)}

    def metrics(self) -> dict[str, float]:
        """For a metrics writer: `curriculum/success_rate/TASK`, `curriculum/probability/TASK`, `curriculum/COUNT`."""
        named = [("success_rate", self.success_rates()), ("probability", self.probabilities())]
        values = {f"curriculum/{name}/{task}": value for name, by in named for task, value in by.items()}
        return values | {f"curriculum/{name}": float(count) for name, count in self.counts().items()}

    def save(self, path: str | Path) -> None:
        """Writes everything that `load` needs to go on, as JSON; readers see the old file or the new one."""
        with self._lock:
            state = {
                "config": asdict(self._config),
                "task_ids": self._task_ids,
                "num_init_states": self._num_init_states,
                "success_rates": list(self._rates.values()),
                "num_results": list(self._num_results.values()),
                "counts": self._counts,
                "outstanding": self._outstanding,
                "rng": self._rng.bit_generator.state,
            }
            write_state(Path(path), state)

    @classmethod
    def load(cls, path: str | Path) -> "CurriculumManager":
        """A manager that draws, and credits open assignments, as the one that was saved would have.

        Raises:
            ConfigError: No such file, another version, or something in it does not fit.
        """
        file = Path(path)
        state = read_state(file)
        try:
            manager = cls(state["task_ids"], state["num_init_states"], CurriculumConfig(**state["config"]))
            manager._restore(state)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as e:
            raise ConfigError(f"{file} is no curriculum that this version can read: {e!r}.") from e
        return manager

    def _restore(self, state: dict[str, Any]) -> None:
        self._rates = dict(zip(self._task_ids, map(float, state["success_rates"]), strict=True))
        self._num_results = dict(zip(self._task_ids, map(int, state["num_results"]), strict=True))
        self._counts = {name: int(state["counts"][name]) for name in RESULT_COUNTS}
        self._outstanding = {str(key): int(task_id) for key, task_id in state["outstanding"].items()}
        if not set(self._outstanding.values()) <= set(self._task_ids):
            raise ConfigError(f"open assignments are of tasks {set(self._outstanding.values())}")
        if not all(0.0 <= rate <= 1.0 for rate in self._rates.values()):
            raise ConfigError(f"success rates are {list(self._rates.values())}, not in [0, 1]")
        self._rng.bit_generator.state = state["rng"]

    def _shares(self) -> NDArray[np.float64]:
        rates = list(self._rates.values())
        return sampling_probabilities(rates, self._config.temperature, self._config.floor)

    def _draw_group(self) -> list[Assignment]:
        index = int(self._rng.choice(len(self._task_ids), p=self._shares()))
        task_id = self._task_ids[index]
        init_state_id = int(self._rng.integers(self._num_init_states[index]))
        first = self._next_number
        self._next_number += self._config.group_size
        names = [f"{self._run}-{number}" for number in range(first, self._next_number)]
        for name in names:
            if len(self._outstanding) >= self._config.max_outstanding:
                del self._outstanding[next(iter(self._outstanding))]  # the oldest
                self._counts["evicted"] += 1
            self._outstanding[name] = task_id
        return [Assignment(name, names[0], task_id, init_state_id) for name in names]

    def _settle(self, result: EpisodeResult) -> None:
        task_id = self._outstanding.pop(result.assignment_id, None)
        if task_id is None:
            self._counts["duplicate" if self._made(result.assignment_id) else "unknown"] += 1
        elif result.task_id is not None and result.task_id != task_id:
            self._counts["mismatched"] += 1
        elif result.success is None:
            self._counts["abandoned"] += 1
        else:
            self._counts["credited"] += 1
            self._num_results[task_id] += 1
            self._rates[task_id] += self._config.alpha * (float(result.success) - self._rates[task_id])

    def _made(self, assignment_id: str) -> bool:
        run, _, number = assignment_id.partition("-")
        return run == self._run and number.isdecimal() and int(number) < self._next_number
