"""Which episode an env plays next, for trainers that leave the choice to their env.

`StartState`, `StartPlan`, `start_counts`. numpy only.
"""

__all__ = ["StartPlan", "StartState", "start_counts"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from verl_env_adapter.common.env_settings import EnvSettings
from vlac_gym.envs.libero.tasks import list_tasks
from vlac_gym.envs.warp.scene_files import count_starts, find_scene_folders
from vlac_gym.errors import ConfigError


@dataclass(frozen=True)
class StartState:
    """One official initial state.

    Attributes:
        task_id: Task of the suite.
        init_state_id: Initial state of that task.
        state_id: Running number of (task, initial state) over the whole suite.
        eval_episode_id: Position in the evaluation, or -1 in training.
    """

    task_id: int
    init_state_id: int
    state_id: int
    eval_episode_id: int = -1


class StartPlan:
    """Draws start states for training; deals each evaluation episode to one env of one process, in order.

    The order is verl-vla's `LiberoResetStatePlanner`'s: one env of every process after another gets the next
    episode; the list starts anew until each env has as many as any other.

    Args:
        counts: Task id -> number of initial states, for the whole suite.
        tasks: The tasks that are played; None means all.
        seed: Of the draws.
        process: This process's number, below `num_processes`.
        num_processes: Processes that share an evaluation.
        num_envs: Envs of each process.
        max_states_per_task: The first so many states of each task only; None means all.
        only_state_id: This state only; None means no restriction.

    Raises:
        ConfigError: Unknown task, or no state is left.
    """

    def __init__(
        self,
        counts: Mapping[int, int],
        tasks: Sequence[int] | None,
        *,
        seed: int,
        process: int = 0,
        num_processes: int = 1,
        num_envs: int = 1,
        max_states_per_task: int | None = None,
        only_state_id: int | None = None,
    ) -> None:
        unknown = sorted(set(tasks or ()) - set(counts))
        if unknown:
            raise ConfigError(f"Expected env.tasks among 0..{len(counts) - 1}, got {unknown}.")
        self._all = _number(counts)
        by_task = {task: [state for state in self._all if state.task_id == task] for task in counts}
        self._states = [
            state
            for task in (tasks if tasks is not None else sorted(counts))
            for state in by_task[task][:max_states_per_task]
            if only_state_id is None or state.state_id == only_state_id
        ]
        if not self._states:
            raise ConfigError(
                f"Expected a start state, but state_id {only_state_id} is in none of the tasks."
            )
        self._rng = np.random.default_rng((seed, process))
        self._queue = self._deal(process, num_processes, num_envs)
        self._next = 0

    @property
    def num_states(self) -> int:
        """Different episodes of an evaluation."""
        return len(self._states)

    def draw(self, count: int) -> list[StartState]:
        """Start states for training, uniformly, with repetition."""
        return [self._states[i] for i in self._rng.integers(len(self._states), size=count)]

    def next_eval(self, count: int) -> list[StartState]:
        """The next `count` of this process's evaluation episodes; after the last comes the first."""
        chosen = [self._queue[(self._next + i) % len(self._queue)] for i in range(count)]
        self._next = (self._next + count) % len(self._queue)
        return chosen

    def restart_eval(self) -> None:
        """Starts the evaluation anew."""
        self._next = 0

    def by_id(self, state_id: int) -> StartState:
        """The state of a running number, played or not.

        Raises:
            ConfigError: There is none.
        """
        if not 0 <= state_id < len(self._all):
            raise ConfigError(f"Expected a state id in 0..{len(self._all) - 1}, got {state_id}.")
        return self._all[state_id]

    def _deal(self, process: int, num_processes: int, num_envs: int) -> list[StartState]:
        episodes = [replace(state, eval_episode_id=i) for i, state in enumerate(self._states)]
        slots = num_processes * num_envs
        rounds = -(-len(episodes) // slots)
        return [
            episodes[(r * slots + process * num_envs + env) % len(episodes)]
            for r in range(rounds)
            for env in range(num_envs)
        ]


def start_counts(env: EnvSettings) -> dict[int, int]:
    """Initial states of each task of LIBERO's suite, or of the worlds' task; starts no simulator.

    Raises:
        ConfigError: Unknown suite, or the worlds' task was not exported.
        DependencyNotInstalled: LIBERO is needed and not installed.
    """
    if env.scenes is not None:
        folders = find_scene_folders(env.scenes, [(env.suite, task_id) for task_id in env.tasks or ()])
        return {task_id: count_starts(folder) for (_, task_id), folder in folders.items()}
    return {task.task_id: task.num_init_states for task in list_tasks(env.suite)}


def _number(counts: Mapping[int, int]) -> list[StartState]:
    pairs = [(task, init) for task in sorted(counts) for init in range(counts[task])]
    return [StartState(task, init, i) for i, (task, init) in enumerate(pairs)]
