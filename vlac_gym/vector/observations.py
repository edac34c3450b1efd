"""Batched observations in shared or plain memory: `allocate`, `rows`, `view`, `write_row`, `copy_rows`.

Shared memory is anonymous (an unlinked file that multiprocessing hands to its children), so that no crash can
leave a segment behind, and nothing is pickled.
"""

__all__ = ["allocate", "copy_row", "copy_rows", "read_row", "stack_rows", "view", "write_row"]

from collections.abc import Sequence
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import create_empty_array, create_shared_memory, read_from_shared_memory

from vlac_gym.errors import ConfigError
from vlac_gym.frames.on_device import is_tensor, stacked

_LEAVES = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)


def allocate(space: spaces.Space[Any], num_envs: int, context: BaseContext | None) -> Any:
    """Memory for `num_envs` observations; see `view`.

    Args:
        space: One env's observation space: Box, Discrete, MultiBinary or MultiDiscrete, in Dict and Tuple.
        num_envs: Number of rows.
        context: Shares the memory with processes started from this context; None keeps it private.

    Raises:
        ConfigError: The space holds something else.
    """
    _check(space, "the observation")
    if context is None:
        return create_empty_array(space, n=num_envs, fn=np.zeros)
    return create_shared_memory(space, n=num_envs, ctx=context)  # type: ignore[arg-type]


def view(space: spaces.Space[Any], num_envs: int, memory: Any, *, is_shared: bool) -> Any:
    """Arrays of shape (num_envs, ...) in Dicts and Tuples as the space has them, backed by `memory`."""
    return read_from_shared_memory(space, memory, n=num_envs) if is_shared else memory


def write_row(batch: Any, row: int, observation: Any) -> None:
    """Copies one env's observation into its row."""
    if isinstance(batch, dict):
        for key, item in batch.items():
            write_row(item, row, observation[key])
    elif isinstance(batch, tuple):
        for item, part in zip(batch, observation, strict=True):
            write_row(item, row, part)
    else:
        batch[row] = observation


def read_row(batch: Any, row: int) -> Any:
    """One env's observation as views of its row."""
    if isinstance(batch, dict):
        return {key: read_row(item, row) for key, item in batch.items()}
    if isinstance(batch, tuple):
        return tuple(read_row(item, row) for item in batch)
    return batch[row]


def copy_row(batch: Any, row: int) -> Any:
    """One env's observation as copies."""
    if isinstance(batch, dict):
        return {key: copy_row(item, row) for key, item in batch.items()}
    if isinstance(batch, tuple):
        return tuple(copy_row(item, row) for item in batch)
    item = batch[row]
    return item.clone() if is_tensor(item) else item.copy()  # scalars of a Discrete space have it, too


def copy_rows(batch: Any, rows: Sequence[int]) -> Any:
    """Some envs' observations as a batch of copies."""
    if isinstance(batch, dict):
        return {key: copy_rows(item, rows) for key, item in batch.items()}
    if isinstance(batch, tuple):
        return tuple(copy_rows(item, rows) for item in batch)
    return batch[list(rows)]


def stack_rows(observations: Sequence[Any]) -> Any:
    """One or more envs' observations as a batch."""
    first = observations[0]
    if isinstance(first, dict):
        return {key: stack_rows([one[key] for one in observations]) for key in first}
    if isinstance(first, tuple):
        return tuple(stack_rows(part) for part in zip(*observations, strict=True))
    return stacked(observations)


def _check(space: spaces.Space[Any], where: str) -> None:
    if isinstance(space, spaces.Dict):
        for key, item in space.spaces.items():
            _check(item, f"{where}[{key!r}]")
    elif isinstance(space, spaces.Tuple):
        for i, item in enumerate(space.spaces):
            _check(item, f"{where}[{i}]")
    elif not isinstance(space, _LEAVES):
        names = ", ".join(leaf.__name__ for leaf in _LEAVES)
        raise ConfigError(f"Expected {where} as one of {names}, or Dict and Tuple of them, got {space}.")
