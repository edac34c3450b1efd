"""Turns frames into normalised model input: `FramePreparer`, `lanczos_weights`.

The resize is Pillow's LANCZOS filter, written as two matrix products so that it runs on the accelerator;
each pass is rounded to 8 bits as Pillow does. `mode="pillow"` runs Pillow itself, in threads.
"""

__all__ = ["FramePreparer", "ImagePreparation", "lanczos_weights"]

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlac_gym.extras import needs
from vlac_gym.frames.on_device import tensor_of
from vlac_gym.types import Frame

with needs("The transformers engine", "vlac"):
    import torch
    from PIL import Image

ImagePreparation = Literal["device", "pillow"]
Staged = list[torch.Tensor | list[torch.Tensor]]
"""By neighbouring frames of one size: a stack uint8 (n, H, W, 3) on the host, or pictures that a device has."""

_LANCZOS_SUPPORT = 3.0
_THREADS = 4


@lru_cache(maxsize=32)
def lanczos_weights(size_in: int, size_out: int) -> NDArray[np.float32]:
    """The matrix that resizes one axis as Pillow's LANCZOS filter does.

    Follows Pillow's `precompute_coeffs` (src/libImaging/Resample.c): windowed sinc of support 3, widened when
    shrinking, cut at the edges and normalised.

    Returns:
        float32 (size_out, size_in); each row sums to 1.
    """
    scale = size_in / size_out
    filter_scale = max(scale, 1.0)
    support = _LANCZOS_SUPPORT * filter_scale
    weights = np.zeros((size_out, size_in))
    for row in range(size_out):
        center = (row + 0.5) * scale
        low = max(int(center - support + 0.5), 0)
        high = min(int(center + support + 0.5), size_in)
        x = (np.arange(low, high) - center + 0.5) / filter_scale
        window = np.where(np.abs(x) < _LANCZOS_SUPPORT, np.sinc(x) * np.sinc(x / _LANCZOS_SUPPORT), 0.0)
        weights[row, low:high] = window / window.sum()
    return weights.astype(np.float32)


class FramePreparer:
    """Resizes and normalises frames on `device`; the host's part runs in threads ahead of time.

    Args:
        image_size: Side of the square model input in pixels; the aspect ratio is not kept.
        mean: Mean per RGB channel, in [0, 1].
        std: Standard deviation per RGB channel, same scale.
        mode: `"device"` resizes on the device; `"pillow"` with Pillow on the host, to the bit.
        device: Where the model runs.
        dtype: Of the result.
    """

    def __init__(
        self,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        mode: ImagePreparation,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._size = image_size
        self._mode = mode
        self._device = device
        self._dtype = dtype
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="frames")

    def begin(self, frames: Sequence[Frame]) -> "Future[Staged]":
        """Starts the host's part for one batch in a thread; `finish` takes what it returns."""
        return self._threads.submit(self._stage, list(frames))

    def finish(self, staged: "Future[Staged]") -> torch.Tensor:
        """Uploads what is on the host, and resizes.

        Returns:
            (N, 3, image_size, image_size) on the device, in the frames' order.
        """
        prepared = [self.resize(self._gathered(stack)) for stack in staged.result()]
        return torch.cat(prepared) if len(prepared) > 1 else prepared[0]

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=True)

    def _stage(self, frames: list[Frame]) -> Staged:
        """Neighbouring frames of one size together, stacked and pinned if that speeds the upload."""
        if self._mode == "pillow":
            frames = [self._pillow(frame) for frame in frames]
        stacks: list[list[Frame]] = []
        for frame in frames:
            if stacks and _kind(stacks[-1][0]) == _kind(frame):
                stacks[-1].append(frame)
            else:
                stacks.append([frame])
        return [self._on_its_way(stack) for stack in stacks]

    def _on_its_way(self, frames: list[Frame]) -> torch.Tensor | list[torch.Tensor]:
        if tensor_of(frames[0]) is not None:
            return [tensor_of(frame) for frame in frames]
        stack = torch.from_numpy(np.stack(frames))
        return stack.pin_memory() if self._device.type == "cuda" else stack

    def _gathered(self, stack: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
        """uint8 (n, H, W, 3) on the device; stacked here and not in a thread, whose stream may be another."""
        if isinstance(stack, list):
            return torch.stack(stack).to(self._device)
        return stack.to(self._device, non_blocking=True)

    def _pillow(self, frame: Frame) -> Frame:
        resized = Image.fromarray(np.asarray(frame)).resize(
            (self._size, self._size), Image.Resampling.LANCZOS
        )
        return np.asarray(resized)

    def resize(self, stack: torch.Tensor) -> torch.Tensor:
        """uint8 (n, H, W, 3) on the device to normalised (n, 3, size, size)."""
        height, width = stack.shape[1:3]
        pixels = stack.permute(0, 3, 1, 2).float()
        if width != self._size:
            pixels = _to_8_bits(pixels @ self._weights(width).T)
        if height != self._size:
            pixels = _to_8_bits(self._weights(height) @ pixels)
        return ((pixels / 255 - self._mean) / self._std).to(self._dtype)

    def _weights(self, size_in: int) -> torch.Tensor:
        return _weights_on(size_in, self._size, self._device)


def _kind(frame: Frame) -> tuple[object, ...]:
    """Equal for frames that can be stacked."""
    tensor = tensor_of(frame)
    return frame.shape, None if tensor is None else tensor.device


@lru_cache(maxsize=32)
def _weights_on(size_in: int, size_out: int, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(lanczos_weights(size_in, size_out)).to(device)


def _to_8_bits(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.add_(0.5).floor_().clamp_(0, 255)
