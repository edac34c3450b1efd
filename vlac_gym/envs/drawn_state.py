"""What a picture is drawn from, and the picture, in memory that two processes share: `DrawnState`, `PictureMemory`.

MuJoCo composes a scene from arrays of the state (where everything is) and of the model (how it looks). Those that may
differ between two pictures of one XML have some 60 kB in LIBERO; meshes and textures stay as they are.
"""

__all__ = ["DrawnState", "PictureMemory"]

import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_OF_DATA = (
    "cam_xmat", "cam_xpos", "flexvert_xpos", "geom_xmat", "geom_xpos", "light_xdir", "light_xpos", "sensordata",
    "site_xmat", "site_xpos", "ten_length", "ten_wrapadr", "ten_wrapnum", "wrap_obj", "wrap_xpos", "xpos", "xquat",
)  # fmt: skip
"""What ``mjv_updateScene`` reads of the state with the options of `OffscreenRenderer`; no contacts, no forces."""

_OF_MODEL = (
    "cam_", "flex_rgba", "geom_group", "geom_matid", "geom_rgba", "geom_size", "light_", "mat_", "site_", "skin_rgba",
    "tendon_rgba", "tendon_width",
)  # fmt: skip
"""How the names of the arrays begin that say how a model looks and is lit."""

_OF_HEADLIGHT = ("ambient", "diffuse", "specular")
_ALIGNMENT = 64


class DrawnState:
    """Which arrays of a model and its state a picture is drawn from, and where each lies in a block of memory.

    It is the same for all models of one XML, in every process.

    Args:
        model: An ``MjModel``.
        data: An ``MjData`` of it.

    Attributes:
        num_bytes: Size of the block.
    """

    def __init__(self, model: Any, data: Any) -> None:
        self._of_data = tuple(name for name in _OF_DATA if _has_numbers(data, name))
        self._of_model = tuple(
            name for name in dir(model) if name.startswith(_OF_MODEL) and _has_numbers(model, name)
        )
        self._places: list[tuple[int, tuple[int, ...], np.dtype[Any]]] = []
        self.num_bytes = 0
        for array in self._arrays(model, data):
            self._places.append((self.num_bytes, array.shape, array.dtype))
            self.num_bytes += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT

    def views(self, memory: mmap.mmap) -> list[NDArray[Any]]:
        """The arrays that a block holds."""
        return [np.ndarray(shape, dtype, memory, offset) for offset, shape, dtype in self._places]

    def save(self, model: Any, data: Any, views: Sequence[NDArray[Any]]) -> None:
        """Copies a state to a block."""
        for view, array in zip(views, self._arrays(model, data), strict=True):
            view[...] = array

    def load(self, model: Any, data: Any, views: Sequence[NDArray[Any]]) -> None:
        """Makes a model and its data show the state of a block; nothing else can be done with them."""
        for view, array in zip(views, self._arrays(model, data), strict=True):
            array[...] = view

    def _arrays(self, model: Any, data: Any) -> list[NDArray[Any]]:
        headlight = model.vis.headlight
        return [
            *(getattr(data, name) for name in self._of_data),
            *(getattr(model, name) for name in self._of_model),
            *(getattr(headlight, name) for name in _OF_HEADLIGHT),
        ]


class PictureMemory:
    """A state to draw and the picture of it, in anonymous shared memory, which goes with its last user.

    Args:
        file: Descriptor from `create`; the caller's to close.
        layout: What the state holds.
        size: Side of the picture in pixels.

    Attributes:
        state: Views of the state's arrays.
        pixels: uint8 (size, size, 3).
    """

    def __init__(self, file: int, layout: DrawnState, size: int) -> None:
        memory = mmap.mmap(file, layout.num_bytes + 3 * size * size)
        self.state = layout.views(memory)
        self.pixels: NDArray[np.uint8] = np.ndarray((size, size, 3), np.uint8, memory, layout.num_bytes)

    @staticmethod
    def create(layout: DrawnState, size: int) -> int:
        """Descriptor of new memory for a state and a picture."""
        file = os.memfd_create("vlac-gym-picture")
        os.ftruncate(file, layout.num_bytes + 3 * size * size)
        return file


def _has_numbers(owner: Any, name: str) -> bool:
    array = getattr(owner, name, None)
    return isinstance(array, np.ndarray) and array.size > 0
