"""Who carries a vector env's commands out: `Executor`, and `InlineExecutor`, which does it in this process.

`LocalExecutor` is what all have in common that do it in this process.
"""

__all__ = ["Executor", "ExecutorFactory", "EnvFactory", "InlineExecutor", "LocalExecutor"]

from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, TypeAlias

import gymnasium as gym

from vlac_gym.vector.commands import Command, Reply
from vlac_gym.vector.observations import allocate, view
from vlac_gym.vector.slot import EnvSlot, EnvSpaces

EnvFactory: TypeAlias = Callable[[], gym.Env[Any, Any]]


class Executor(Protocol):
    """Carries out one command per env at a time.

    Attributes:
        batch: The envs' latest observations: arrays (num_envs, ...) as the space has them, overwritten in place.
    """

    batch: Any

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        ...

    def submit(self, commands: Mapping[int, Command]) -> None:
        """Hands out commands by env index, to envs that have none; `collect` or `collect_ready` must follow."""
        ...

    def collect(self) -> dict[int, Reply]:
        """Waits for all submitted commands, with a deadline; one reply each, in the order of env indices."""
        ...

    def collect_ready(self, timeout_s: float | None, wake: Connection) -> dict[int, Reply]:
        """The replies that are there; waits for the first, with a deadline.

        Args:
            timeout_s: How long to wait at most, in s; None for the deadline alone.
            wake: Ends the waiting when it becomes readable.
        """
        ...

    def abandon(self) -> None:
        """Forgets the submitted commands; their replies are dropped when they come."""
        ...

    def close(self) -> None:
        """Closes every env; safe to call twice."""
        ...


class ExecutorFactory(Protocol):
    """Starts the workers of a vector env, for `RolloutVectorEnv(mode=…)`; see `WorkerExecutor` for the arguments."""

    def __call__(
        self,
        env_fns: Sequence[EnvFactory],
        spaces: EnvSpaces,
        /,
        *,
        start_timeout_s: float,
        step_timeout_s: float,
        max_restarts: int,
    ) -> Executor:
        """The workers, started."""
        ...


class LocalExecutor:
    """What executors without workers share: memory of their own, and commands that wait until they are collected.

    Args:
        spaces: One env's spaces.
        num_envs: Number of envs.
    """

    def __init__(self, spaces: EnvSpaces, num_envs: int) -> None:
        memory = allocate(spaces.observation, num_envs, None)
        self.batch = view(spaces.observation, num_envs, memory, is_shared=False)
        self._commands: dict[int, Command] = {}

    @property
    def pids(self) -> tuple[int, ...]:
        """Empty: there are no workers."""
        return ()

    def submit(self, commands: Mapping[int, Command]) -> None:
        """Remembers the commands; they are carried out when they are collected."""
        self._commands |= commands

    def abandon(self) -> None:
        """Drops the commands."""
        self._commands = {}


class InlineExecutor(LocalExecutor):
    """Runs every env in this process, one after the other.

    Args:
        env_fns: Build the envs, on their first command.
        spaces: One env's spaces.
    """

    def __init__(self, env_fns: Sequence[EnvFactory], spaces: EnvSpaces) -> None:
        super().__init__(spaces, len(env_fns))
        self._slots = [EnvSlot(fn, spaces, self.batch, i) for i, fn in enumerate(env_fns)]

    def collect(self) -> dict[int, Reply]:
        """Carries the commands out; pictures are drawn meanwhile, and read last."""
        commands, self._commands = self._commands, {}
        replies = {i: self._slots[i].start(command) for i, command in sorted(commands.items())}
        return {i: reply() for i, reply in replies.items()}

    def collect_ready(self, timeout_s: float | None, wake: Connection) -> dict[int, Reply]:
        """Carries out the oldest command; waits for `wake` if there is none."""
        if not self._commands:
            wait([wake], timeout_s)
            return {}
        i = next(iter(self._commands))
        return {i: self._slots[i].run(self._commands.pop(i))}

    def close(self) -> None:
        """Closes every env."""
        for slot in self._slots:
            slot.close()
