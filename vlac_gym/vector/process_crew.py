"""Envs in worker processes: `ProcessCrew`."""

__all__ = ["ProcessCrew"]

import logging
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium as gym

from vlac_gym.envs.gl import check_devices
from vlac_gym.errors import ConfigError, SimulatorError
from vlac_gym.vector.crew import EnvFactory
from vlac_gym.vector.observations import allocate, view
from vlac_gym.vector.orders import Lost, Order, Report, ResetOrder, StepOrder
from vlac_gym.vector.worker import Worker, share

logger = logging.getLogger(__name__)

_CLOSE_S = 5.0


class ProcessCrew:
    """Runs envs in processes that stay; observations come through shared memory.

    A process that dies or misses a deadline is replaced at once. Orders to step that it held are reported as
    `Lost`, and so are later ones until the env is reset; orders to reset are given to its successor.

    Args:
        env_fns: Build the envs, each in its process and on its first order.
        observation_space: One env's observation space.
        envs_per_worker: Envs in one process, one after the other.
        context: How processes start; OpenGL does not survive a plain fork.
        start_timeout_s: Deadline of a reset, which may have to build a simulator.
        step_timeout_s: Deadline of any other order.
        max_restarts: Successors of one process in a row without a reset that worked.
        render_devices: EGL devices that the processes render on in turn; None for every visible GPU.

    Raises:
        ConfigError: Processes can't be started from this program.
        SimulatorError: From `collect`, when a process keeps dying.
    """

    def __init__(
        self,
        env_fns: Sequence[EnvFactory],
        observation_space: gym.Space[Any],
        *,
        envs_per_worker: int,
        context: Literal["spawn", "forkserver"],
        start_timeout_s: float,
        step_timeout_s: float,
        max_restarts: int,
        render_devices: Sequence[int] | None,
    ) -> None:
        if render_devices is not None:
            check_devices(render_devices)
        self._start_timeout_s = start_timeout_s
        self._step_timeout_s = step_timeout_s
        self._max_restarts = max_restarts
        count = len(env_fns)
        processes = multiprocessing.get_context(context)
        memory = allocate(observation_space, count, processes)
        self.batch = view(observation_space, count, memory, is_shared=True)
        space = share(processes, observation_space)
        self._workers: list[Worker] = []
        self._orders: dict[Worker, dict[int, Order]] = {}
        try:
            for number, first in enumerate(range(0, count, envs_per_worker)):
                fns = {i: env_fns[i] for i in range(first, min(first + envs_per_worker, count))}
                self._workers.append(Worker(processes, fns, space, memory, count, number, render_devices))
            self._check_start(self._workers[0])
        except BaseException:
            self.close()
            raise
        self._restarts = dict.fromkeys(self._workers, 0)
        self._worker_of = {i: worker for worker in self._workers for i in worker.indices}

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        return tuple(worker.pid for worker in self._workers)

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

    def _check_start(self, worker: Worker) -> None:
        """Waits for one worker; those that can't start in this program all can't."""
        is_ready = worker.wait_until_ready(time.monotonic() + self._start_timeout_s)
        if not is_ready and (worker.exit_code or 0) > 0:
            raise ConfigError(
                f"Expected worker processes to start, but the first ended with exit code {worker.exit_code}; its error "
                "is printed above. Workers import the main script: put what makes and uses the env under "
                "`if __name__ == '__main__':`, or choose mode='sync'."
            )

    def _receive(self, worker: Worker, orders: dict[int, Order], deadline_s: float) -> dict[int, Report]:
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

    def _replace(self, worker: Worker, reason: str) -> None:
        self._restarts[worker] += 1
        logger.warning("envs %s lost their episodes: %s", list(worker.indices), reason)
        worker.restart()
        if self._restarts[worker] > self._max_restarts:
            raise SimulatorError(
                f"The worker of envs {list(worker.indices)} failed {self._restarts[worker]} times in a row, lastly: "
                f"{reason}. Scripts that start workers need `if __name__ == '__main__':`; try mode='sync' to "
                "see the error, and check the machine's memory."
            )

    def _deadline(self, orders: Mapping[Worker, Mapping[int, Order]]) -> float:
        is_reset = any(isinstance(order, ResetOrder) for part in orders.values() for order in part.values())
        return time.monotonic() + (self._start_timeout_s if is_reset else self._step_timeout_s)
