"""Where a wrapped env's frame is: `FrameSource`, `FrameReader`, `image_keys`."""

__all__ = ["FrameReader", "FrameSource", "image_keys"]

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np

from vlac_gym.critic.base import check_frame
from vlac_gym.errors import ConfigError
from vlac_gym.frames.on_device import DeviceFrame, is_tensor, on_host, tensor_of
from vlac_gym.types import Frame

FrameSource: TypeAlias = str | Callable[[Any, Mapping[str, Any]], Frame]
"""A key of a Dict observation, ``"observation"``, ``"render"``, or a function of (observation, info)."""

LIBERO_KEY = "agentview_image"


class FrameReader:
    """Reads the critic's frame where the source says, checked on every read.

    Args:
        env: The wrapped env; not started here.
        source: See `FrameSource`. None chooses the first that exists: `agentview_image` of a Dict
            observation, its only image, an observation that is itself an image, `env.render()`.

    Attributes:
        camera: The camera's name if the frame is the Dict observation's `<camera>_image`, else None.

    Raises:
        ConfigError: There is no such frame, or more than one candidate.
    """

    def __init__(self, env: gym.Env[Any, Any], source: FrameSource | None) -> None:
        self._source: FrameSource = source if callable(source) else _resolve(env, source)
        self.camera: str | None = None
        if isinstance(self._source, str) and self._source.endswith("_image"):
            self.camera = self._source.removesuffix("_image")
        self._where = _place_name(self._source)

    def read(self, env: gym.Env[Any, Any], observation: Any, info: Mapping[str, Any]) -> Frame:
        """The frame, uint8 (H, W, 3).

        Raises:
            ConfigError: What is there is no such frame.
        """
        frame: Frame = on_host(self._found(env, observation, info))
        return frame

    def take(self, env: gym.Env[Any, Any], observation: Any, info: Mapping[str, Any]) -> Frame:
        """A copy of the frame, which nothing overwrites; where it is a tensor, a `DeviceFrame`. Raises as `read`."""
        found = self._found(env, observation, info)
        frame: Any = np.array(found) if tensor_of(found) is None else DeviceFrame.copy_of(found.tensor)
        checked: Frame = frame
        return checked

    def _found(self, env: gym.Env[Any, Any], observation: Any, info: Mapping[str, Any]) -> Any:
        """What is where the source says, checked; of a tensor, the frame."""
        if callable(self._source):
            found: Any = self._source(observation, info)
        elif self._source == "observation":
            found = observation
        elif self._source == "render":
            found = env.render()
        else:
            found = observation[self._source]
        frame = DeviceFrame(found) if is_tensor(found) else found
        check_frame(frame, self._where)
        return frame


def _place_name(source: FrameSource) -> str:
    """What messages call the place that the source says."""
    if callable(source):
        return "the frame function's result"
    named = {"observation": "the observation", "render": "render()"}
    return named.get(source, f"observation[{source!r}]")


def _resolve(env: gym.Env[Any, Any], source: str | None) -> str:
    keys = image_keys(env.observation_space)
    if source is None:
        source = _choose(env, keys)
    can_be_read = (
        source in keys
        or (source == "observation" and _is_image(env.observation_space))
        or (source == "render" and env.render_mode == "rgb_array")
    )
    if not can_be_read:
        raise ConfigError(
            f"No frame at {source!r}: observation images (uint8 (H, W, 3), channels last): {keys or 'none'}, found "
            f"{_arrays(env.observation_space)}, render_mode: {env.render_mode!r}. Convert them in a wrapper, or give "
            "frame= a key of the observation, 'observation', 'render' (with render_mode='rgb_array') or a function of "
            "(observation, info)."
        )
    return source


def _choose(env: gym.Env[Any, Any], keys: list[str]) -> str:
    if LIBERO_KEY in keys:
        return LIBERO_KEY
    if len(keys) > 1:
        raise ConfigError(f"The observation holds several images: {keys}. Say which with frame=.")
    if keys:
        return keys[0]
    return "observation" if _is_image(env.observation_space) else "render"


def _arrays(space: gym.Space[Any]) -> str:
    """Key, dtype and shape of each array of an observation."""
    named = space.spaces if isinstance(space, gym.spaces.Dict) else {"the observation": space}
    arrays = [f"{key} {item.dtype} {item.shape}" for key, item in named.items() if item.shape]
    return ", ".join(arrays) or "no arrays"


def image_keys(space: gym.Space[Any]) -> list[str]:
    """Keys of a Dict observation that hold uint8 (H, W, 3) images; empty for other observations."""
    if not isinstance(space, gym.spaces.Dict):
        return []
    return [key for key, item in space.spaces.items() if _is_image(item)]


def _is_image(space: gym.Space[Any]) -> bool:
    shape = space.shape
    return space.dtype == np.uint8 and shape is not None and len(shape) == 3 and shape[2] == 3
