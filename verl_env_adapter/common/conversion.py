"""Between this package's arrays and a trainer's: conventions, key tables, checks, batching. numpy only.

What pictures and gripper mean to a policy is in `vlac_gym.frames.convention` and `vlac_gym.policies.gripper`.
`check_actions`, `stack_images`, `stack_vectors`, `rename_keys`: shape and dtype checked on the way. `chunk_columns`:
the per-step columns of an action chunk.
"""

__all__ = [
    "ChunkColumns",
    "chunk_columns",
    "check_actions",
    "rename_keys",
    "stack_images",
    "stack_vectors",
]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vlac_gym.errors import AdapterContractError
from vlac_gym.frames.convention import ImageConvention, convert_image
from vlac_gym.types import Frame


def check_actions(
    actions: Any, *, num_envs: int, action_size: int, max_chunk: int, where: str
) -> NDArray[np.float32]:
    """A trainer's batch of action chunks as float32 (num_envs, T, A), checked.

    Args:
        actions: Anything that numpy takes: (num_envs, T, A), or (num_envs, A) for single actions.
        num_envs: Expected first dimension.
        action_size: Expected last dimension, A.
        max_chunk: Longest T.
        where: The trainer's call that gave it, for the message.

    Raises:
        AdapterContractError: Another shape, no numbers, or a value that is not finite.
    """
    try:
        array = np.asarray(actions, dtype=np.float32)
    except (TypeError, ValueError) as e:
        raise AdapterContractError(
            f"Expected numbers as actions from {where}, got {type(actions).__name__}: {e}."
        ) from e
    if array.ndim == 2:
        array = array[:, None, :]
    shape = array.shape
    if array.ndim != 3 or shape[0] != num_envs or not 1 <= shape[1] <= max_chunk or shape[2] != action_size:
        raise AdapterContractError(
            f"Expected actions of shape ({num_envs}, 1..{max_chunk}, {action_size}) from {where}, "
            f"got {np.shape(actions)}. Set env.chunk to the policy's chunk and check the action size."
        )
    if not np.isfinite(array).all():
        rows = sorted(set(np.argwhere(~np.isfinite(array))[:, 0].tolist()))
        raise AdapterContractError(
            f"Expected finite actions from {where}, got NaN or infinity for envs {rows}. The policy has diverged."
        )
    return array


def stack_images(frames: Sequence[Frame], convention: ImageConvention, where: str) -> NDArray[np.uint8]:
    """Pictures of several envs as uint8 (N, H, W, 3) in a convention.

    Raises:
        AdapterContractError: None at all, another dtype or shape, or sizes that differ.
    """
    for i, frame in enumerate(frames):
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3:
            raise AdapterContractError(
                f"Expected {where}[{i}] as uint8 (H, W, 3), got {_describe(frame)}. Use channels-last RGB, 0..255."
            )
    _check_one_shape(frames, where)
    return np.stack([convert_image(frame, convention) for frame in frames])


def stack_vectors(vectors: Sequence[NDArray[Any]], where: str, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Vectors of several envs as `dtype` (N, D).

    Raises:
        AdapterContractError: None at all, not one-dimensional, or sizes that differ.
    """
    for i, vector in enumerate(vectors):
        if np.ndim(vector) != 1:
            raise AdapterContractError(f"Expected {where}[{i}] as a vector (D,), got {_describe(vector)}.")
    _check_one_shape(vectors, where)
    return np.stack([np.asarray(vector, dtype=dtype) for vector in vectors])


def rename_keys(observation: Mapping[str, Any], table: Mapping[str, str], where: str) -> dict[str, Any]:
    """The observation under a trainer's names.

    Args:
        observation: The env's Dict observation.
        table: Trainer's key -> env's key.
        where: What the result is for, for the message.

    Raises:
        AdapterContractError: The env lacks a key.
    """
    missing = [key for key in table.values() if key not in observation]
    if missing:
        raise AdapterContractError(
            f"Expected {missing} in the observation for {where}, got {sorted(observation)}. "
            "Add the camera to env.cameras."
        )
    return {theirs: observation[ours] for theirs, ours in table.items()}


@dataclass(frozen=True)
class ChunkColumns:
    """A chunk's signals, one column per commanded step.

    Attributes:
        rewards: float32 (T,); 0 from the step after the episode's end.
        terminated: bool (T,); True from the ending step on.
        truncated: bool (T,); likewise.
    """

    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


def chunk_columns(
    rewards: Sequence[float] | NDArray[Any], *, terminated: bool, truncated: bool, num_columns: int
) -> ChunkColumns:
    """Spreads an executed chunk over the columns that a trainer expects.

    Args:
        rewards: One per executed step, at most `num_columns`; empty if the episode had ended before.
        terminated: Did the last executed step end the episode (or had it ended so before)?
        truncated: Likewise.
        num_columns: T, the commanded chunk's length.

    Raises:
        AdapterContractError: More rewards than columns, or fewer without an end of the episode.
    """
    executed = len(rewards)
    if executed > num_columns or (executed < num_columns and not (terminated or truncated)):
        raise AdapterContractError(
            f"Expected {num_columns} executed steps, or fewer at the end of an episode, got {executed} "
            f"with terminated={terminated}, truncated={truncated}."
        )
    row = np.zeros(num_columns, dtype=np.float32)
    row[:executed] = rewards
    since_end = np.arange(num_columns) >= max(executed - 1, 0)
    return ChunkColumns(row, since_end & terminated, since_end & truncated)


def _check_one_shape(arrays: Sequence[NDArray[Any]], where: str) -> None:
    shapes = sorted({np.shape(array) for array in arrays})
    if len(shapes) != 1:
        raise AdapterContractError(f"Expected {where} of one shape for all envs, got {shapes or 'nothing'}.")


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__
