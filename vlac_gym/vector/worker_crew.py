"""Envs in workers that can die: `WorkerCrew`, and `EnvWorker`, what it asks of them."""

__all__ = ["EnvWorker", "WorkerCrew"]

import logging
import time
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

from vlac_gym.errors import SimulatorError
from vlac_gym.vector.orders import Lost, Order, Report, ResetOrder, StepOrder

logger = logging.getLogger(__name__)

_CLOSE_S = 5.0


class EnvWorker(Protocol):
    """Where a few envs live: a process of this machine, or an actor on another.

    Attributes:
        indices: Of its envs.
    """

    indices: tuple[int, ...]

    def send(self, orders: Mapping[int, Order]) -> bool:
        """Hands out orders; False if the worker is gone."""
        ...

    def receive(self, deadline_s: float) -> dict[int, Report] | str:
        """The reports of the latest orders, or why there will be none; observations are in the batch by then.

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


class WorkerCrew(Generic[_W]):
    """Runs envs in workers that stay.

    A worker that dies or misses a deadline is replaced at once. Orders to step that it held are reported as
    `Lost`, and so are later ones until the env is reset; orders to reset are given to its successor.

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
        self._orders: dict[_W, dict[int, Order]] = {}

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers; empty where they are not of this machine."""
        return ()

    def add_worker(self, worker: _W) -> None:
        """Gives the crew a worker, and its envs with it."""
        self._workers.append(worker)
        self._restarts[worker] = 0
        self._worker_of |= dict.fromkeys(worker.indices, worker)

    def submit(self, orders: Mapping[int, Order]) -> None:
        """Sends each worker its orders in one message."""
        self._orders = {}
        for i, order in orders.items():
            self._orders.setdefault(self._worker_of[i], {})[i] = order
        for worker, part in self._orders.items():
            worker.send(part)  # if it is gone, `collect` finds out

    def collect(self) -> dict[int, Report]:
        """Waits for every worker that has orders; see the class for those that die."""
        orders, self._orders = self._orders, {}
        deadline_s = self._deadline(orders)
        reports: dict[int, Report] = {}
        for worker, part in orders.items():
            reports |= self._receive(worker, part, deadline_s)
        return dict(sorted(reports.items()))

    def close(self) -> None:
        """Lets the workers close their envs, and kills those that take longer than 5 s."""
        for worker in self._workers:
            worker.ask_to_stop()
        deadline_s = time.monotonic() + _CLOSE_S
        while self._workers:
            self._workers.pop().stop(deadline_s)
        self._worker_of = {}

    def _receive(self, worker: _W, orders: dict[int, Order], deadline_s: float) -> dict[int, Report]:
        reports: dict[int, Report] = {}
        while orders:
            answer = worker.receive(deadline_s)
            if not isinstance(answer, str):
                if any(isinstance(order, ResetOrder) for order in orders.values()):
                    self._restarts[worker] = 0
                return reports | answer
            self._replace(worker, answer)
            reports |= {i: Lost(answer) for i, order in orders.items() if isinstance(order, StepOrder)}
            orders = {i: order for i, order in orders.items() if not isinstance(order, StepOrder)}
            if orders:
                worker.send(orders)
                deadline_s = self._deadline({worker: orders})
        return reports

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

    def _deadline(self, orders: Mapping[_W, Mapping[int, Order]]) -> float:
        is_reset = any(isinstance(order, ResetOrder) for part in orders.values() for order in part.values())
        return time.monotonic() + (self._start_timeout_s if is_reset else self._step_timeout_s)
