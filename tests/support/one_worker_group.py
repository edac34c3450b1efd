"""The one GPU worker of SimpleVLA-RL in the driver's process, in place of a Ray worker group: `OneWorkerGroup`."""

from collections.abc import Callable
from typing import Any


class OneWorkerGroup:
    """What the trainer's loop calls, handed to a worker.

    Args:
        worker: Its `RobActorRolloutRefWorker`.
        before_update: Is told every batch that the actor is to learn from.
    """

    world_size = 1

    def __init__(self, worker: Any, before_update: Callable[[Any], None]) -> None:
        self._worker = worker
        self._before_update = before_update

    def generate_sequences(self, prompts: Any) -> Any:
        return self._worker.generate_sequences(prompts)

    def update_actor(self, data: Any) -> Any:
        self._before_update(data)
        return self._worker.update_actor(data)

    def compute_entropy(self, data: Any) -> Any:
        return self._worker.compute_entropy(data)
