"""Vector infos from one info per env, and back: `stack_infos`, `unstack_infos`."""

__all__ = ["stack_infos", "unstack_infos"]

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WHOLE = ("final_obs",)
"""Keys whose values are kept as they are, one object per env, as Gymnasium does."""

_SCALARS: dict[type, np.dtype[Any] | None] = {
    bool: np.dtype(np.bool_),
    int: np.dtype(np.int64),
    float: np.dtype(np.float64),
    str: None,
    list: None,
}


def stack_infos(infos: Mapping[int, Mapping[str, Any]], num_envs: int) -> dict[str, Any]:
    """Gymnasium's vector infos: an array (num_envs, ...) per key, and a mask ``_key`` of the envs that have it.

    Booleans, integers, floats and arrays of one shape are stacked, dicts recursively, all else becomes an
    object array. Unlike `VectorEnv._add_info`, an entry's type doesn't depend on which env comes first: None
    is a masked entry (NaN among floats, and if no env has a value), and mixed types become objects.

    Args:
        infos: Env index to its info; envs that are missing have none.
        num_envs: Number of envs.
    """
    stacked: dict[str, Any] = {}
    for key in dict.fromkeys(key for info in infos.values() for key in info):
        values = {i: info[key] for i, info in infos.items() if key in info}
        mask = np.zeros(num_envs, np.bool_)
        mask[[i for i, value in values.items() if value is not None]] = True
        stacked[key] = _stack(key, {i: v for i, v in values.items() if v is not None}, num_envs)
        stacked[f"_{key}"] = mask
    return stacked


def unstack_infos(infos: Mapping[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """One info per env, holding what its masks say it has; arrays' entries become Python scalars where they can."""
    return [_unstack(infos, i) for i in range(num_envs)]


def _stack(key: str, values: dict[int, Any], num_envs: int) -> Any:
    if (
        values
        and key not in _WHOLE
        and all(issubclass(kind, Mapping) for kind in set(map(type, values.values())))
    ):
        return stack_infos(values, num_envs)
    dtype, shape = _common_type(values) if key not in _WHOLE else (None, ())
    array: NDArray[Any]
    if dtype is None:
        array = np.full(num_envs, None, dtype=object)
    else:
        fill = np.nan if np.issubdtype(dtype, np.floating) else 0
        array = np.full((num_envs, *shape), fill, dtype=dtype)
    for i, value in values.items():
        array[i] = value
    return array


def _common_type(values: Mapping[int, Any]) -> tuple[np.dtype[Any] | None, tuple[int, ...]]:
    """The dtype and shape that all values have, or (None, ()) if they are no numbers or differ."""
    if not values:
        return np.dtype(np.float64), ()
    kinds = set(map(type, values.values()))
    if len(kinds) == 1 and (kind := kinds.pop()) in _SCALARS:
        return _SCALARS[kind], ()
    arrays = [np.asarray(v) if _is_number(v) else None for v in values.values()]
    types = {(array.dtype, array.shape) if array is not None else None for array in arrays}
    only = types.pop() if len(types) == 1 else None
    return only if only is not None else (None, ())


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.dtype != object)
    return isinstance(value, bool | int | float | np.generic)


def _unstack(infos: Mapping[str, Any], i: int) -> dict[str, Any]:
    single: dict[str, Any] = {}
    for key, array in infos.items():
        mask = infos.get(f"_{key}")
        if mask is None or not mask[i]:
            continue
        if isinstance(array, Mapping):
            single[key] = _unstack(array, i)
        else:
            value = array[i]
            single[key] = value.item() if isinstance(value, np.generic) else value
    return single
