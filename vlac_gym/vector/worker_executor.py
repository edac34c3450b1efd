"""Envs in workers that can die: `WorkerExecutor`, and `EnvWorker`, what it asks of them."""

__all__ = ["EnvWorker", "WorkerExecutor"]

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from multiprocessing.connection import Connection
from typing import Any, Generic, Protocol, TypeVar

from vlac_gym.errors import SimulatorError
from vlac_gym.vector.commands import Command, Lost, Reply, ResetCommand, StepCommand

logger = logging.getLogger(__name__)

_CLOSE_S = 5.0
"""What processes are given to end by themselves."""


class EnvWorker(Protocol):
    """Where a few envs live: a process of this machine, or an actor on another.

    Attributes:
        indices: Of its envs.
    """

    indices: tuple[int, ...]

    def send(self, commands: Mapping[int, Command]) -> bool:
        """Hands out commands, behind those that are out; False if the worker is gone."""
        ...

    def receive(self, deadline_s: float) -> dict[int, Reply] | str:
        """Some replies of commands that are out, maybe none yet, or why there will be none; their observations are in
        the batch by then.

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


class WorkerExecutor(ABC, Generic[_W]):
    """Runs envs in workers that stay.

    A worker that dies or misses a deadline is replaced at once. Orders to step that it held are reported as
    `Lost`, and so are later ones until the env is reset; commands to reset are given to its successor.

    Args:
        batch: Where the workers write the envs' observations; see `vlac_gym.vector.observations`.
        start_timeout_s: Deadline of a reset, which may have to build a simulator.
        step_timeout_s: Deadline of any other command. A worker with several commands has it for each.
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
        self._out: dict[_W, dict[int, Command]] = {}
        self._deadlines: dict[_W, float] = {}

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
        parts: dict[_W, dict[int, Command]] = {}
        for i, command in commands.items():
            parts.setdefault(self._worker_of[i], {})[i] = command
        for worker, part in parts.items():
            self._out.setdefault(worker, {}).update(part)
            self._expect(worker)
            worker.send(part)  # if it is gone, `collect` finds out

    def collect(self) -> dict[int, Reply]:
        """Waits for every worker that has commands; see the class for those that die."""
        replies: dict[int, Reply] = {}
        try:
            for worker in list(self._out):
                while worker in self._out:
                    replies |= self._receive(worker)
        except BaseException:
            self.abandon()
            raise
        return dict(sorted(replies.items()))

    def collect_ready(self, timeout_s: float | None, wake: Connection) -> dict[int, Reply]:
        """See `Executor`."""
        until_s = min(self._deadlines.values(), default=float("inf"))
        if timeout_s is not None:
            until_s = min(until_s, time.monotonic() + timeout_s)
        replies: dict[int, Reply] = {}
        try:
            for worker in self.wait_for_any(until_s, wake):
                if worker in self._out:
                    replies |= self._receive(worker)
        except BaseException:
            self.abandon()
            raise
        return replies

    @abstractmethod
    def wait_for_any(self, until_s: float, wake: Connection) -> Collection[_W]:
        """Workers that have something to receive, are gone, or have missed their deadline.

        Args:
            until_s: How long to wait at most, on the clock of `time.monotonic`.
            wake: Ends the waiting when it becomes readable.
        """

    def abandon(self) -> None:
        """Forgets the commands that are out; their replies are dropped when they come."""
        self._out, self._deadlines = {}, {}

    def close(self) -> None:
        """Lets the workers close their envs, and kills those that take longer than 5 s."""
        for worker in self._workers:
            worker.ask_to_stop()
        deadline_s = time.monotonic() + _CLOSE_S
        while self._workers:
            self._workers.pop().stop(deadline_s)
        self._worker_of = {}

    def _receive(self, worker: _W) -> dict[int, Reply]:
        answer = worker.receive(self._deadlines[worker])
        commands = self._out[worker]
        if isinstance(answer, str):
            self._replace(worker, answer)
            lost = {i: Lost(answer) for i, command in commands.items() if isinstance(command, StepCommand)}
            self._settle(worker, lost)
            if commands:
                worker.send(commands)
            return dict(lost)
        if any(isinstance(commands.get(i), ResetCommand) for i in answer):
            self._restarts[worker] = 0
        return self._settle(worker, answer)

    def _settle(self, worker: _W, replies: Mapping[int, Reply]) -> dict[int, Reply]:
        """Takes those that somebody waits for; the worker's deadline begins anew."""
        commands = self._out[worker]
        awaited = {i: reply for i, reply in replies.items() if commands.pop(i, None) is not None}
        if commands:
            self._expect(worker)
        else:
            del self._out[worker], self._deadlines[worker]
        return awaited

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

    def _expect(self, worker: _W) -> None:
        """Sets the deadline of the worker's next reply."""
        is_reset = any(isinstance(command, ResetCommand) for command in self._out[worker].values())
        allowed_s = self._start_timeout_s if is_reset else self._step_timeout_s
        self._deadlines[worker] = time.monotonic() + allowed_s
