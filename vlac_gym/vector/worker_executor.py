"""Envs in workers that can die: `WorkerExecutor`, and `EnvWorker`, what it asks of them."""

__all__ = ["EnvWorker", "WorkerExecutor"]

import logging
import time
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

from vlac_gym.errors import SimulatorError
from vlac_gym.vector.commands import Command, Lost, Reply, ResetCommand, StepCommand

logger = logging.getLogger(__name__)

_CLOSE_S = 5.0


class EnvWorker(Protocol):
    """Where a few envs live: a process of this machine, or an actor on another.

    Attributes:
        indices: Of its envs.
    """

    indices: tuple[int, ...]

    def send(self, commands: Mapping[int, Command]) -> bool:
        """Hands out commands; False if the worker is gone."""
        ...

    def receive(self, deadline_s: float) -> dict[int, Reply] | str:
        """The replies of the latest commands, or why there will be none; observations are in the batch by then.

        Args:
            deadline_s: On the clock of `time.monotonic`.
        """
        ...

    def restart(self) -> None:
        """Ends it, if it still runs, and starts a successor."""
        ...

    def ask_to_stop(self) -> None:
        """Asks it to end by itself; `stop` must follow."""
        ...

    def stop(self, deadline_s: float) -> None:
        """Waits for it to end by itself until the deadline, then kills it."""
        ...


_W = TypeVar("_W", bound=EnvWorker)


class WorkerExecutor(Generic[_W]):
    """Runs envs in workers that stay.

    A worker that dies or misses a deadline is replaced at once. Orders to step that it held are reported as
    `Lost`, and so are later ones until the env is reset; commands to reset are given to its successor.

    Args:
        batch: Where the workers write the envs' observations; see `vlac_gym.vector.observations`.
        start_timeout_s: Deadline of a reset, which may have to build a simulator.
        step_timeout_s: Deadline of any other order.
        max_restarts: Successors of one worker in a row without a reset that worked.

    Raises:
        SimulatorError: From `collect`, when a worker keeps dying.
    """

    def __init__(
        self, batch: Any, *, start_timeout_s: float, step_timeout_s: float, max_restarts: int
    ) -> None:
        self.batch = batch
        self._start_timeout_s = start_timeout_s
        self._step_timeout_s = step_timeout_s
        self._max_restarts = max_restarts
        self._workers: list[_W] = []
        self._worker_of: dict[int, _W] = {}
        self._restarts: dict[_W, int] = {}
        self._commands: dict[_W, dict[int, Command]] = {}

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers; empty where they are not of this machine."""
        return ()

    def add_worker(self, worker: _W) -> None:
        """Gives the executor a worker, and its envs with it."""
        self._workers.append(worker)
        self._restarts[worker] = 0
        self._worker_of |= dict.fromkeys(worker.indices, worker)

    def submit(self, commands: Mapping[int, Command]) -> None:
        """Sends each worker its commands in one message."""
        self._commands = {}
        for i, command in commands.items():
            self._commands.setdefault(self._worker_of[i], {})[i] = command
        for worker, part in self._commands.items():
            worker.send(part)  # if it is gone, `collect` finds out

    def collect(self) -> dict[int, Reply]:
        """Waits for every worker that has commands; see the class for those that die."""
        commands, self._commands = self._commands, {}
        deadline_s = self._deadline(commands)
        replies: dict[int, Reply] = {}
        for worker, part in commands.items():
            replies |= self._receive(worker, part, deadline_s)
        return dict(sorted(replies.items()))

    def close(self) -> None:
        """Lets the workers close their envs, and kills those that take longer than 5 s."""
        for worker in self._workers:
            worker.ask_to_stop()
        deadline_s = time.monotonic() + _CLOSE_S
        while self._workers:
            self._workers.pop().stop(deadline_s)
        self._worker_of = {}

    def _receive(self, worker: _W, commands: dict[int, Command], deadline_s: float) -> dict[int, Reply]:
        replies: dict[int, Reply] = {}
        while commands:
            answer = worker.receive(deadline_s)
            if not isinstance(answer, str):
                if any(isinstance(command, ResetCommand) for command in commands.values()):
                    self._restarts[worker] = 0
                return replies | answer
            self._replace(worker, answer)
            replies |= {
                i: Lost(answer) for i, command in commands.items() if isinstance(command, StepCommand)
            }
            commands = {i: command for i, command in commands.items() if not isinstance(command, StepCommand)}
            if commands:
                worker.send(commands)
                deadline_s = self._deadline({worker: commands})
        return replies

    def _replace(self, worker: _W, reason: str) -> None:
        self._restarts[worker] += 1
        logger.warning("envs %s lost their episodes: %s", list(worker.indices), reason)
        worker.restart()
        if self._restarts[worker] > self._max_restarts:
            raise SimulatorError(
                f"The worker of envs {list(worker.indices)} failed {self._restarts[worker]} times in a row, lastly: "
                f"{reason}. Scripts that start workers need `if __name__ == '__main__':`; try mode='sync' to "
                "see the error, and check the machine's memory."
            )

    def _deadline(self, commands: Mapping[_W, Mapping[int, Command]]) -> float:
        is_reset = any(
            isinstance(command, ResetCommand) for part in commands.values() for command in part.values()
        )
        return time.monotonic() + (self._start_timeout_s if is_reset else self._step_timeout_s)
