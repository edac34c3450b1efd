"""Envs in worker processes: `ProcessExecutor`."""

__all__ = ["ProcessExecutor"]

import multiprocessing
import time
from collections.abc import Collection, Sequence
from multiprocessing.connection import Connection, wait

from vlac_gym.envs.gl import check_devices
from vlac_gym.errors import ConfigError
from vlac_gym.vector.config import VectorConfig
from vlac_gym.vector.executor import EnvFactory
from vlac_gym.vector.observations import allocate, view
from vlac_gym.vector.slot import EnvSpaces
from vlac_gym.vector.worker import Worker, WorkerPlace, core_of, share
from vlac_gym.vector.worker_executor import WorkerExecutor


class ProcessExecutor(WorkerExecutor[Worker]):
    """Runs envs in processes of this machine; observations come through shared memory.

    Args:
        env_fns: Build the envs, each in its process and on its first command.
        spaces: One env's spaces.
        config: How they run, as `RolloutVectorEnv` describes it.

    Raises:
        ConfigError: Processes can't be started from this program.
    """

    def __init__(self, env_fns: Sequence[EnvFactory], spaces: EnvSpaces, config: VectorConfig) -> None:
        devices = config.render_devices
        if devices is not None:
            check_devices(devices)
        count = len(env_fns)
        processes = multiprocessing.get_context(config.context)
        memory = allocate(spaces.observation, count, processes)
        super().__init__(
            view(spaces.observation, count, memory, is_shared=True),
            start_timeout_s=config.start_timeout_s,
            step_timeout_s=config.step_timeout_s,
            max_restarts=config.max_restarts,
        )
        shared = share(processes, spaces)
        try:
            for number, first in enumerate(range(0, count, config.envs_per_worker)):
                fns = {i: env_fns[i] for i in range(first, min(first + config.envs_per_worker, count))}
                core = core_of(number) if config.pin_workers else None
                place = WorkerPlace(number, devices, core, config.worker_niceness)
                self.add_worker(Worker(processes, fns, shared, memory, count, place))
            self._check_start(self._workers[0])
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        return tuple(worker.pid for worker in self._workers)

    def wait_for_any(self, until_s: float, wake: Connection) -> Collection[Worker]:
        """See `WorkerExecutor`."""
        owner = {handle: worker for worker in self._out for handle in worker.handles}
        left_s = None if until_s == float("inf") else max(0.0, until_s - time.monotonic())
        ready = {owner[handle] for handle in wait([*owner, wake], left_s) if handle is not wake}
        now_s = time.monotonic()
        return [w for w in self._out if w in ready or self._deadlines[w] <= now_s]

    def _check_start(self, worker: Worker) -> None:
        """Waits for one worker; those that can't start in this program all can't."""
        is_ready = worker.wait_until_ready(time.monotonic() + self._start_timeout_s)
        if not is_ready and (worker.exit_code or 0) > 0:
            raise ConfigError(
                f"Expected worker processes to start, but the first ended with exit code {worker.exit_code}; its error "
                "is printed above. Workers import the main script: put what makes and uses the env under "
                "`if __name__ == '__main__':`, or choose mode='sync'."
            )
