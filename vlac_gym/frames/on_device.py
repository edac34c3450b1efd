"""Pictures in a device's memory, as torch has them: `DeviceFrame`, `blank_pictures`, `is_tensor`, `on_host`, `stacked`,
`tensor_of`, `torch_stream`, `wait_for_torch`.

torch is imported where a tensor is made, and nowhere else.
"""

__all__ = [
    "DeviceFrame",
    "blank_pictures",
    "is_tensor",
    "on_host",
    "stacked",
    "tensor_of",
    "torch_stream",
    "wait_for_torch",
]

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.extras import needs

_numbers = itertools.count()


class DeviceFrame:
    """A picture that stays where a torch tensor has it, until somebody asks for its pixels.

    ``np.asarray(frame)`` downloads them: the same picture as numpy has it, so that `check_frame`, `frame_digest` and
    whatever begins with `np.asarray` take either. Critics get such frames only if they say that they take them
    (`BaseCritic.takes_device_frames`).

    Args:
        tensor: A torch tensor (H, W, 3), uint8, which nobody writes to.

    Attributes:
        tensor: The tensor.
        key: Its name among the frames of this process, 16 bytes. Unlike a digest it tells equal pictures apart, and
            costs no download.
    """

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor
        self.key = b"ondevice" + next(_numbers).to_bytes(8, "big")

    @classmethod
    def copy_of(cls, tensor: Any) -> "DeviceFrame":
        """A frame with memory of its own: whoever keeps it keeps nothing beside it alive."""
        with torch_stream(tensor.device):
            return cls(tensor.clone())

    def __reduce__(self) -> tuple[Any, ...]:
        return DeviceFrame, (self.tensor,)  # with a key of the process that it comes to

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, 3)."""
        return tuple(self.tensor.shape)

    @property
    def ndim(self) -> int:
        """3."""
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        """The tensor's, as numpy has it; of those that numpy doesn't have, as torch has it."""
        try:
            return np.dtype(str(self.tensor.dtype).removeprefix("torch."))
        except TypeError:
            return self.tensor.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels."""
        return int(self.tensor.nbytes)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False and self.tensor.device.type != "cpu":
            raise ValueError(
                f"Expected pixels on the host, got them on {self.tensor.device}: that is a copy."
            )
        pixels: NDArray[Any] = self.tensor.cpu().numpy()
        return pixels.astype(self.dtype if dtype is None else dtype, copy=bool(copy))


@contextmanager
def torch_stream(device: Any) -> Iterator[None]:
    """A block whose work on pictures is queued in torch's default stream of a torch device.

    Threads ask critics and stage frames, and the current stream is each thread's own: what all of them read and write
    is put in one stream, which waits for what its caller had queued before, and which its caller's waits for. Without
    a device, or on one without streams, the block just runs.
    """
    if device is None or device.type != "cuda":
        yield
        return
    cuda = _torch().cuda
    own, shared = cuda.current_stream(device), cuda.default_stream(device)
    if own == shared:
        yield
        return
    shared.wait_stream(own)
    with cuda.stream(shared):
        yield
    own.wait_stream(shared)


def wait_for_torch(device: Any) -> None:
    """Returns when all that was queued by `torch_stream` is done."""
    if device.type == "cuda":
        _torch().cuda.default_stream(device).synchronize()


def blank_pictures(shape: Sequence[int], device: str) -> Any:
    """A black uint8 tensor of this shape.

    Raises:
        DependencyNotInstalled: torch is missing.
    """
    torch = _torch()
    return torch.zeros(*shape, dtype=torch.uint8, device=device)


def tensor_of(frame: object) -> Any:
    """The tensor of a `DeviceFrame`, None of an array."""
    return frame.tensor if isinstance(frame, DeviceFrame) else None


def is_tensor(value: object) -> bool:
    """Whether it is a torch tensor, told without torch."""
    return hasattr(value, "cpu")


def on_host(array: Any) -> Any:
    """The array, or, of a tensor or frame on a device, its pixels in numpy."""
    if isinstance(array, np.ndarray):
        return array
    if is_tensor(array):
        return array.cpu().numpy()
    return np.asarray(array) if isinstance(array, DeviceFrame) else array


def stacked(arrays: Sequence[Any]) -> Any:
    """One or more arrays, or tensors of one device, in a new first axis."""
    return _torch().stack(list(arrays)) if is_tensor(arrays[0]) else np.stack(arrays)


def _torch() -> Any:
    with needs("Pictures as torch tensors", "vlac"):
        import torch
    return torch
