"""Who carries a vector env's orders out: `Crew`, and `InlineCrew`, which does it in this process."""

__all__ = ["Crew", "CrewFactory", "EnvFactory", "InlineCrew"]

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import gymnasium as gym

from vlac_gym.vector.observations import allocate, view
from vlac_gym.vector.orders import Order, Report
from vlac_gym.vector.slot import EnvSlot

EnvFactory: TypeAlias = Callable[[], gym.Env[Any, Any]]


class Crew(Protocol):
    """Carries out one order per env at a time.

    Attributes:
        batch: The envs' latest observations: arrays (num_envs, ...) as the space has them, overwritten in place.
    """

    batch: Any

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        ...

    def submit(self, orders: Mapping[int, Order]) -> None:
        """Hands out orders by env index; `collect` must follow."""
        ...

    def collect(self) -> dict[int, Report]:
        """Waits for the submitted orders, with a deadline; one report each, in the order of env indices."""
        ...

    def close(self) -> None:
        """Closes every env; safe to call twice."""
        ...


class CrewFactory(Protocol):
    """Starts the workers of a vector env, for `RolloutVectorEnv(mode=…)`; see `WorkerCrew` for the arguments."""

    def __call__(
        self,
        env_fns: Sequence[EnvFactory],
        observation_space: gym.Space[Any],
        /,
        *,
        start_timeout_s: float,
        step_timeout_s: float,
        max_restarts: int,
    ) -> Crew:
        """The workers, started."""
        ...


class InlineCrew:
    """Runs every env in this process, one after the other.

    Args:
        env_fns: Build the envs, on their first order.
        observation_space: One env's observation space.
    """

    def __init__(self, env_fns: Sequence[EnvFactory], observation_space: gym.Space[Any]) -> None:
        memory = allocate(observation_space, len(env_fns), None)
        self.batch = view(observation_space, len(env_fns), memory, is_shared=False)
        self._slots = [EnvSlot(fn, observation_space, self.batch, i) for i, fn in enumerate(env_fns)]
        self._orders: dict[int, Order] = {}

    @property
    def pids(self) -> tuple[int, ...]:
        """Empty: there are no workers."""
        return ()

    def submit(self, orders: Mapping[int, Order]) -> None:
        """Remembers the orders; they are carried out by `collect`."""
        self._orders = dict(orders)

    def collect(self) -> dict[int, Report]:
        """Carries the orders out."""
        orders, self._orders = self._orders, {}
        return {i: self._slots[i].run(order) for i, order in sorted(orders.items())}

    def close(self) -> None:
        """Closes every env."""
        for slot in self._slots:
            slot.close()
