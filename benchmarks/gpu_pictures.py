"""The renderers that gpu_simulation.py compares: the package's, and mujoco-warp's own."""

from collections.abc import Sequence
from typing import Any

import mujoco_warp as mjw
import numpy as np

from vlac_gym.envs.warp.pictures import DRAWN_GROUPS, Pictures

MOST_AT_ONCE = 64


class PlainPictures:
    """Draws cameras of N worlds by mujoco-warp's own renderer."""

    def __init__(self, model: Any, num_worlds: int, pixels: int, cameras: Sequence[str]) -> None:
        size, options = (pixels, pixels), {"enabled_geom_groups": list(DRAWN_GROUPS)}
        self._context = mjw.create_render_context(
            model, num_worlds, size, True, cam_active=list(cameras), **options
        )
        self._pixels = pixels

    def draw(self, model: Any, data: Any) -> None:
        """Draws the worlds as `data` describes them."""
        mjw.refit_bvh(model, data, self._context)
        mjw.render(model, data, self._context)

    def numpy(self) -> np.ndarray:
        """The last pictures: uint8 (N, cameras, pixels, pixels, 3)."""
        packed = self._context.rgb_data.numpy().reshape(
            len(self._context.rgb_data), -1, self._pixels, self._pixels
        )
        return np.stack([(packed >> shift) & 255 for shift in (16, 8, 0)], axis=-1).astype(np.uint8)


class OpenGLPictures:
    """Draws cameras of N worlds by the package's renderer; arguments as of `PlainPictures`."""

    def __init__(self, model: Any, num_worlds: int, pixels: int, cameras: Sequence[str]) -> None:
        self._pictures, self._cameras = Pictures(model, num_worlds, pixels, cameras), list(cameras)
        self._shape = (num_worlds, len(cameras), pixels, pixels, 3)
        self._drawn: Any = None

    def draw(self, model: Any, data: Any) -> None:
        """Draws the worlds as `data` describes them."""
        self._drawn = self._pictures.draw(model, data, self._cameras)

    def numpy(self) -> np.ndarray:
        """The last pictures: uint8 (N, cameras, pixels, pixels, 3)."""
        return self._drawn.numpy().reshape(self._shape).copy()


RENDERERS: dict[str, Any] = {"opengl": OpenGLPictures, "plain": PlainPictures}


def draw_places(
    model: Any, qpos: np.ndarray, pixels: int, cameras: Sequence[str], renderer: str
) -> np.ndarray:
    """Pictures of joint positions (N, nq), some at a time: uint8 (N, cameras, pixels, pixels, 3)."""
    count = min(len(qpos), MOST_AT_ONCE)
    device_model, data = mjw.put_model(model), mjw.make_data(model, nworld=count)
    pictures = RENDERERS[renderer](model, count, pixels, cameras)
    drawn = []
    for begin in range(0, len(qpos), count):
        rows = np.minimum(np.arange(begin, begin + count), len(qpos) - 1)
        data.qpos.assign(qpos[rows].astype(np.float32))
        mjw.kinematics(device_model, data)
        mjw.com_pos(device_model, data)
        mjw.camlight(device_model, data)
        pictures.draw(device_model, data)
        drawn.append(pictures.numpy())
    return np.concatenate(drawn)[: len(qpos)]
