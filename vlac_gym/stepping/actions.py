"""Actions, checked before anything moves: of one env by `check_action`, of N by `checked_actions`, `checked_chunks`.

`chunk_space` is the space of several actions of one env.
"""

__all__ = [
    "as_array",
    "check_action",
    "checked_actions",
    "checked_chunks",
    "checked_mask",
    "chunk_space",
    "require_numbers",
]

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray

from vlac_gym.checks import check_int
from vlac_gym.errors import ConfigError

_CHECKED = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def as_array(actions: Any, where: str = "actions") -> NDArray[Any]:
    """Actions as an array.

    Raises:
        ConfigError: Rows of different lengths, or a tensor that is on a GPU or has a gradient.
    """
    try:
        return np.asarray(actions)
    except (ValueError, TypeError, RuntimeError) as e:  # the last two are PyTorch's
        raise ConfigError(f"Expected {where} as one array, got {actions!r}: {e}; nothing moved.") from e


def require_numbers(array: NDArray[Any], where: str = "actions") -> None:
    """Refuses what is no real number.

    Raises:
        ConfigError: An array of objects, texts, complex numbers and the like.
    """
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"Expected {where} as real numbers, got dtype {array.dtype}; nothing moved.")


def check_action(action: Any, space: spaces.Space[Any]) -> None:
    """Refuses what an env could stumble over half way.

    Args:
        action: Any form that `np.asarray` reads.
        space: The action space. Box, Discrete, MultiDiscrete and MultiBinary are looked at, also in a Dict or
            Tuple; values beyond the bounds of a Box of floats are the env's own affair.

    Raises:
        ConfigError: Another shape than the space's, no numbers, not finite, or a value that an integer space lacks.
    """
    if _is_ordinary(action, space):
        return
    for where, leaf, part in _leaves("action", space, action):
        array = as_array(part, f"an {where}")
        if array.shape != leaf.shape:
            raise ConfigError(
                f"Expected an {where} of shape {leaf.shape}, got {array.shape}. The env has not moved."
            )
        require_numbers(array, f"an {where}")
        if not np.isfinite(array).all():
            raise ConfigError(f"Expected a finite {where}, got {array.tolist()}. The env has not moved.")
        _require_in_range(array, leaf, f"an {where}")


def chunk_space(action_space: spaces.Space[Any], chunk_size: int) -> spaces.Box:
    """Box (chunk_size, A), whose rows are actions of a Box (A,).

    Raises:
        ConfigError: `chunk_size` < 1, or another action space.
    """
    check_int("chunk_size", chunk_size, minimum=1)
    if not isinstance(action_space, spaces.Box) or len(action_space.shape) != 1:
        raise ConfigError(f"Expected an env with a Box action of shape (A,), got {action_space}.")
    shape = (chunk_size, *action_space.shape)
    low, high = (np.broadcast_to(bound, shape) for bound in (action_space.low, action_space.high))
    return spaces.Box(low, high, dtype=action_space.dtype.type)


def checked_chunks(
    actions: NDArray[Any], num_envs: int, action_shape: tuple[int, ...]
) -> Sequence[NDArray[Any]]:
    """The chunks by env.

    Args:
        actions: (num_envs, T, *action_shape), T >= 1.
        num_envs: N.
        action_shape: Shape of one env's action.

    Raises:
        ConfigError: Wrong shape, no numbers, or not finite.
    """
    array = as_array(actions)
    if array.ndim < 2 or array.shape[0] != num_envs or array.shape[1] == 0 or array.shape[2:] != action_shape:
        wanted = ", ".join(str(n) for n in (num_envs, "T >= 1", *action_shape))
        raise ConfigError(f"Expected actions of shape ({wanted}), got {array.shape}; `step` takes no axis T.")
    require_numbers(array)
    if not np.isfinite(array).all():
        where = sorted(set(np.argwhere(~np.isfinite(array))[:, 0].tolist()))
        raise ConfigError(f"Expected finite actions, got NaN or infinity for envs {where}; nothing moved.")
    return list(array)


def checked_actions(actions: Any, action_space: spaces.Space[Any], num_envs: int) -> list[Any]:
    """One action per env.

    Args:
        actions: As `action_space`, the batched space, has them, or a list with one action per env for a space that is
            batched as an array.
        action_space: Of the vector env.
        num_envs: N.

    Raises:
        ConfigError: Another number of actions, a wrong shape, no numbers, not finite, or a value that an
            integer space lacks.
    """
    if _is_ordinary(actions, action_space):
        return list(iterate(action_space, actions))
    for where, space, part in _leaves("actions", action_space, actions):
        array = as_array(part, where)
        is_batched = isinstance(space, spaces.Box | spaces.MultiDiscrete)
        wanted = space.shape if is_batched else (num_envs,)
        if (array.shape if is_batched else array.shape[:1]) != wanted:
            raise ConfigError(f"Expected {where} of shape {wanted}, got {array.shape}; nothing moved.")
        require_numbers(array, where)
        if not np.isfinite(array).all():
            envs = sorted(set(np.argwhere(~np.isfinite(array))[:, 0].tolist()))
            raise ConfigError(f"Expected finite {where}, got NaN or infinity for envs {envs}; nothing moved.")
        _require_in_range(array, space, where)
    return list(iterate(action_space, actions))


def checked_mask(mask: Any, num_envs: int) -> NDArray[np.bool_]:
    """Which envs to step, bool (num_envs,); None are all.

    Raises:
        ConfigError: Another type or shape.
    """
    if mask is None:
        return np.ones(num_envs, np.bool_)
    chosen = np.asarray(mask)
    if chosen.dtype != np.bool_ or chosen.shape != (num_envs,):
        raise ConfigError(f"Expected mask as bool ({num_envs},), got {mask!r}; nothing moved.")
    return chosen


def _is_ordinary(action: Any, space: spaces.Space[Any]) -> bool:
    """Whether it is a Box's action as nearly all are: finite floats in its shape, with which no check finds a fault."""
    return (
        type(action) is np.ndarray
        and isinstance(space, spaces.Box)
        and action.shape == space.shape
        and action.dtype.kind == space.dtype.kind == "f"
        # As `.all()`, in half the time.
        and np.count_nonzero(np.isfinite(action)) == action.size
    )


def _leaves(where: str, space: spaces.Space[Any], part: Any) -> Iterator[tuple[str, spaces.Space[Any], Any]]:
    """The arrays of a batch of actions, each with its name and space."""
    if isinstance(space, spaces.Dict):
        if not isinstance(part, Mapping) or set(part) != set(space):
            raise ConfigError(
                f"Expected {where} as a dict with the keys {sorted(space)}, got {part!r}; nothing moved."
            )
        for key, item in space.items():
            yield from _leaves(f"{where}[{key!r}]", item, part[key])
    elif isinstance(space, spaces.Tuple):
        if not isinstance(part, tuple | list) or len(part) != len(space):
            raise ConfigError(f"Expected {where} as a tuple of {len(space)}, got {part!r}; nothing moved.")
        for i, item in enumerate(space):
            yield from _leaves(f"{where}[{i}]", item, part[i])
    elif isinstance(space, _CHECKED):
        yield where, space, part


def _require_in_range(array: NDArray[Any], space: spaces.Space[Any], where: str) -> None:
    """Refuses whole numbers that the space lacks, and fractions where it has whole numbers only."""
    if space.dtype is None or np.dtype(space.dtype).kind not in "iub":
        return
    low: Any
    high: Any
    if isinstance(space, spaces.Box):
        low, high = space.low, space.high
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        count = space.n if isinstance(space, spaces.Discrete) else space.nvec
        low, high = space.start, space.start + count - 1
    else:
        low, high = 0, 1
    if ((array < low) | (array > high) | (array != np.floor(array))).any():
        raise ConfigError(f"Expected {where} in {space}, got {array.tolist()}; nothing moved.")
