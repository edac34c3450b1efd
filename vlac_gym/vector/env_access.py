"""What reaches into the envs of a vector env, as Gymnasium's `call`, `get_attr` and `set_attr` do: `EnvAccess`."""

__all__ = ["EnvAccess"]

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError
from vlac_gym.vector.commands import CallCommand, CallReply, Command, Reply


class EnvAccess(VectorEnv[Any, NDArray[Any], NDArray[Any]]):
    """The part of a vector env's interface that is one call to each env."""

    @abstractmethod
    def execute(self, commands: Mapping[int, Command]) -> dict[int, Reply]:
        """Carries out commands by env index."""

    def render(self) -> tuple[Any, ...]:
        """Every env's `render()`."""
        return self.call("render")

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Calls a method of every env, or reads an attribute; results must be picklable."""
        return self._results({i: CallCommand(name, args, kwargs) for i in range(self.num_envs)})

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Reads an attribute of every env."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Sets an attribute of every env, as `Env.set_wrapper_attr` does; a worker that is replaced does not keep it.

        Args:
            name: Of the attribute.
            values: A list or tuple with one per env, or what all get.

        Raises:
            ConfigError: Another number of values than envs; nothing is set.
        """
        each = list(values) if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(each) != self.num_envs:
            raise ConfigError(f"Expected {self.num_envs} values of {name!r}, one per env, got {len(each)}.")
        self._results({i: CallCommand("set_wrapper_attr", (name, value)) for i, value in enumerate(each)})

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """Every env's seed, of its last reset that was given one; -1 where it is unknown."""
        return self.get_attr("np_random_seed")

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """Every env's generator; a copy where the env is in another process."""
        return self.get_attr("np_random")

    def _results(self, commands: Mapping[int, CallCommand]) -> tuple[Any, ...]:
        replies = self.execute(commands).values()
        return tuple(reply.result for reply in replies if isinstance(reply, CallReply))
