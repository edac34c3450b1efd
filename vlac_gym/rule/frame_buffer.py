"""The frames of an episode that later questions need: `FrameBuffer`."""

__all__ = ["FrameBuffer"]

import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.frames.on_device import tensor_of
from vlac_gym.types import Frame


class FrameBuffer:
    """Copies of frames by env step, within a bound.

    Args:
        max_bytes: Bound of the frames' bytes.
        value_stride: The rule's, for the message when the bound is passed.

    Attributes:
        num_bytes: Bytes of the frames that are kept.
    """

    def __init__(self, max_bytes: int, value_stride: int) -> None:
        self.num_bytes = 0
        self._max_bytes = max_bytes
        self._value_stride = value_stride
        self._frames: dict[int, Frame] = {}

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def last(self) -> Frame:
        """The frame that was kept last."""
        return next(reversed(self._frames.values()))

    def with_last(self, step: int, frame: Frame) -> dict[int, Frame]:
        """The kept frames by step, in order, and this step's, which may be one of them."""
        return self._frames | {step: frame}

    def keep(self, step: int, frame: Frame) -> None:
        """Keeps a copy; of a `DeviceFrame`, whose pixels nobody changes, the frame.

        Raises:
            ConfigError: The bound is passed.
        """
        kept = frame
        if tensor_of(frame) is None:
            kept = np.array(frame, subok=True)  # with the signals that a privileged critic needs
            kept.setflags(write=False)
        self._frames[step] = kept
        self.num_bytes += kept.nbytes
        if self.num_bytes > self._max_bytes:
            raise ConfigError(
                f"The value list's frames take {self.num_bytes} bytes at step {step}, more than "
                f"max_buffer_bytes {self._max_bytes}. Raise it, raise value_stride "
                f"(now {self._value_stride}), or use smaller frames."
            )

    def keep_only(self, step: int, frame: Frame) -> None:
        """Keeps a copy and drops all others."""
        self._frames.clear()
        self.num_bytes = 0
        self.keep(step, frame)
