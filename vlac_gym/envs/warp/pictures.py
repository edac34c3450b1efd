"""Pictures of all worlds at once, by mujoco-warp's ray tracer: `WarpCameras`."""

__all__ = ["WarpCameras"]

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.envs.warp.scene_files import GET_WARP
from vlac_gym.extras import needs

with needs("Drawing on a GPU", get=GET_WARP):
    import mujoco_warp as mjw
    import warp as wp

from vlac_gym.envs.warp import kernels

_DRAWN_GROUPS = [1, 2]
"""Of geoms: robosuite's group 0 are collision shapes, which LIBERO doesn't draw."""


class WarpCameras:
    """Cameras of N worlds.

    Args:
        mj_model: The scene.
        num_worlds: N.
        cameras: Names in the model.
        image_size: Side of the pictures in pixels.
    """

    def __init__(self, mj_model: Any, num_worlds: int, cameras: Sequence[str], image_size: int) -> None:
        self._size, self._num_worlds = image_size, num_worlds
        by_id = sorted(cameras, key=lambda name: mj_model.camera(name).id)
        self._numbers = {name: number for number, name in enumerate(by_id)}
        options: dict[str, Any] = {"cam_active": by_id, "enabled_geom_groups": _DRAWN_GROUPS}
        self._context = mjw.create_render_context(
            mj_model, num_worlds, (image_size, image_size), True, **options
        )
        shape = (num_worlds, image_size, image_size, 3)
        self._pictures = wp.zeros(shape, dtype=wp.uint8)
        is_cuda = wp.get_device().is_cuda
        self._host = {
            name: wp.zeros(shape, dtype=wp.uint8, device="cpu", pinned=is_cuda) for name in self._numbers
        }

    def draw(self, model: Any, data: Any, cameras: Sequence[str]) -> list[NDArray[np.uint8]]:
        """uint8 (N, H, W, 3) of each camera, in this process's memory; overwritten by the next call."""
        mjw.refit_bvh(model, data, self._context)
        mjw.render(model, data, self._context)
        pixels = self._size * self._size
        for name in cameras:
            given = [self._context.rgb_data, self._context.rgb_adr, self._numbers[name], self._size]
            wp.launch(kernels.unpack_pictures, (self._num_worlds, pixels), [*given, self._pictures])
            wp.copy(self._host[name], self._pictures)
        wp.synchronize_device()
        return [self._host[name].numpy() for name in cameras]
