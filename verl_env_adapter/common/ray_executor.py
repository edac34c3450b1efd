"""Envs in Ray actors, on whichever nodes have a resource: `ray_executor`, for `RolloutVectorEnv(mode=…)`."""

__all__ = ["ray_executor"]

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent import futures
from multiprocessing.connection import Connection, wait
from typing import Any

from vlac_gym.errors import SimulatorError
from vlac_gym.extras import needs
from vlac_gym.vector.commands import CallCommand, Command, Reply
from vlac_gym.vector.executor import EnvFactory
from vlac_gym.vector.observations import allocate, copy_row, write_row
from vlac_gym.vector.slot import EnvSlot, EnvSpaces
from vlac_gym.vector.wake_pipe import WakePipe
from vlac_gym.vector.worker_executor import WorkerExecutor


def ray_executor(
    env_fns: Sequence[EnvFactory],
    spaces: EnvSpaces,
    /,
    *,
    resource: str,
    start_timeout_s: float,
    step_timeout_s: float,
    max_restarts: int,
) -> "RayExecutor":
    """Starts an actor for each env.

    Args:
        env_fns: Build the envs, each in its actor and on its first command.
        spaces: One env's spaces.
        resource: Of the nodes; Ray must run.
        start_timeout_s: See `WorkerExecutor`; it includes finding a node.
        step_timeout_s: See there.
        max_restarts: See there.

    Raises:
        DependencyNotInstalled: Ray is not installed.
    """
    with needs("placement.env_resource", "ray"):
        import ray

    def start(env_fn: EnvFactory) -> Any:
        # A thousandth: the resource says where, the CPU how many.
        actor = ray.remote(EnvActor).options(num_cpus=1, resources={resource: 0.001})
        return actor.remote(env_fn, spaces)

    batch = allocate(spaces.observation, len(env_fns), None)
    executor = RayExecutor(
        batch, start_timeout_s=start_timeout_s, step_timeout_s=step_timeout_s, max_restarts=max_restarts
    )
    for i, env_fn in enumerate(env_fns):
        executor.add_worker(RayWorker(ray, start, env_fn, batch, i, resource, executor.arrivals))
    return executor


class RayExecutor(WorkerExecutor["RayWorker"]):
    """Runs envs in Ray actors; see `WorkerExecutor` for the arguments.

    Attributes:
        arrivals: Rung when an actor has answered, or is gone.
    """

    def __init__(self, batch: Any, **deadlines: Any) -> None:
        super().__init__(batch, **deadlines)
        self.arrivals = WakePipe()

    def wait_for_any(self, until_s: float, wake: Connection) -> "Collection[RayWorker]":
        """See `WorkerExecutor`."""
        if not any(worker.has_answer for worker in self._out):
            left_s = None if until_s == float("inf") else max(0.0, until_s - time.monotonic())
            wait([self.arrivals.connection, wake], left_s)
        self.arrivals.clear()
        now_s = time.monotonic()
        return [w for w in self._out if w.has_answer or self._deadlines[w] <= now_s]

    def close(self) -> None:
        """See `WorkerExecutor`."""
        super().close()
        self.arrivals.close()


class EnvActor:
    """One env, in its actor.

    Args:
        env_fn: Builds it, on its first command.
        spaces: Its spaces.
    """

    def __init__(self, env_fn: EnvFactory, spaces: EnvSpaces) -> None:
        self._batch = allocate(spaces.observation, 1, None)
        self._slot = EnvSlot(env_fn, spaces, self._batch, 0)

    def is_placed(self) -> bool:
        """Answers as soon as the actor runs."""
        return True

    def run(self, command: Command) -> tuple[Reply, Any]:
        """Carries a command out; returns its reply, and the observation unless it was a call."""
        reply = self._slot.run(command)
        return reply, None if isinstance(command, CallCommand) else copy_row(self._batch, 0)

    def close(self) -> None:
        """Closes the env."""
        self._slot.close()


class RayWorker:
    """An actor as an `EnvWorker`.

    Args:
        ray: The module.
        start: Starts an actor for an env.
        env_fn: Of the env.
        batch: Where its observations go.
        index: Of the env.
        resource: Of its node, for messages.
        arrivals: To ring when an answer is there.
    """

    def __init__(
        self,
        ray: Any,
        start: Callable[[EnvFactory], Any],
        env_fn: EnvFactory,
        batch: Any,
        index: int,
        resource: str,
        arrivals: WakePipe,
    ) -> None:
        self.indices = (index,)
        self._ray = ray
        self._start = start
        self._env_fn = env_fn
        self._batch = batch
        self._resource = resource
        self._arrivals = arrivals
        self._closed: list[Any] = []
        self._begin()

    @property
    def has_answer(self) -> bool:
        """Whether `receive` would not wait."""
        return self._answer.done()

    def send(self, commands: Mapping[int, Command]) -> bool:
        """Hands out a command; what became of the actor is known when it is received."""
        self._answer: futures.Future[Any] = self._actor.run.remote(commands[self.indices[0]]).future()
        self._answer.add_done_callback(lambda _: self._arrivals.ring())
        return True

    def receive(self, deadline_s: float) -> dict[int, Reply] | str:
        """See `EnvWorker`.

        Raises:
            SimulatorError: The actor found no node; another one would not either.
        """
        futures.wait([self._answer], timeout=max(0.0, deadline_s - time.monotonic()))
        if not self._answer.done():
            if not self._ray.wait([self._placed], timeout=0)[0]:
                raise SimulatorError(
                    f"The actor of env {self.indices[0]} was not placed before its deadline. Has a node the resource "
                    f"{self._resource!r} and a free CPU? Else raise placement.start_timeout_s."
                )
            return "no reply before the deadline"
        try:
            reply, observation = self._answer.result()
        except self._ray.exceptions.RayActorError as e:
            return f"the actor died: {e}"
        if observation is not None:
            write_row(self._batch, self.indices[0], observation)
        return {self.indices[0]: reply}

    def restart(self) -> None:
        """Kills the actor and starts another."""
        self._ray.kill(self._actor)
        self._begin()

    def ask_to_stop(self) -> None:
        """Asks the actor to close its env; where Ray has ended, so has the actor."""
        self._closed = [self._actor.close.remote()] if self._ray.is_initialized() else []

    def stop(self, deadline_s: float) -> None:
        """Waits until it has, or until the deadline, and kills it."""
        if self._closed:
            self._ray.wait(self._closed, timeout=max(0.0, deadline_s - time.monotonic()))
            self._ray.kill(self._actor)

    def _begin(self) -> None:
        self._actor = self._start(self._env_fn)
        self._placed = self._actor.is_placed.remote()
