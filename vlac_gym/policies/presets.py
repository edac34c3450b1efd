"""What published policies for LIBERO see and say: `PolicyPreset`, `PRESETS`, `get_preset`.

All of them were trained on the raw picture turned by 180 degrees, and on the state as this package's env has it
(position m, axis-angle rad, finger joints m). They undo the normalisation of their actions themselves, with the
statistics of their data set: what comes back must be in the env's units, and is refused if it can't be.
"""

__all__ = ["PRESETS", "PolicyPreset", "get_preset"]

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from vlac_gym.errors import ConfigError, PolicyError, unknown_name
from vlac_gym.extras import needs
from vlac_gym.frames.convention import ImageConvention, convert_image
from vlac_gym.policies.base import Action
from vlac_gym.policies.gripper import GripperConvention, convert_gripper
from vlac_gym.types import Frame

_ACTION_SIZE = 7

_MOTION_LIMIT = 2.0
"""Motions are within [-1, 1], and the controller clips a head's overshoot; twice that is another unit, or an action
that is still normalised."""


@dataclass(frozen=True, kw_only=True)
class PolicyPreset:
    """One family of policies.

    Attributes:
        name: Its name in specs.
        images: The model's name of a picture -> the env's.
        image_convention: How the pictures lie.
        image_size: Side of the pictures in pixels.
        resize: How they get that size: ``"bilinear"``, or ``"jpeg_lanczos"`` (through a JPEG of quality 95).
        state: The model's name of the state, float32 (8,).
        task: The model's name of the instruction.
        gripper: What the last number of its actions means.
        gripper_range: Which values that number can have.
        chunk_steps: Actions that are executed before the next look.
        is_exact: The model's chunks hold exactly `chunk_steps` actions; False if only the first ones are executed.
    """

    name: str
    images: Mapping[str, str]
    image_convention: ImageConvention
    image_size: int
    resize: Literal["bilinear", "jpeg_lanczos"]
    state: str
    task: str
    gripper: GripperConvention
    gripper_range: tuple[float, float]
    chunk_steps: int
    is_exact: bool

    def __post_init__(self) -> None:
        if self.chunk_steps < 1:
            raise ConfigError(f"Expected chunk_steps >= 1 for preset {self.name}, got {self.chunk_steps}.")

    @property
    def cameras(self) -> tuple[str, ...]:
        """The env's cameras that the model needs."""
        return tuple(key.removesuffix("_image") for key in self.images.values())

    def model_input(self, observation: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
        """What the model is given.

        Args:
            observation: The env's: upright pictures, uint8 (H, W, 3), and `state`, float32 (8,).
            info: The env's, with `task`.

        Returns:
            Pictures uint8 (image_size, image_size, 3), state float32 (8,) and instruction, under the model's names.

        Raises:
            ConfigError: The observation lacks a picture.
        """
        missing = [key for key in (*self.images.values(), "state") if key not in observation]
        if missing:
            raise ConfigError(
                f"Preset {self.name} needs {', '.join(missing)} in the observation, got {sorted(observation)}. Make "
                f"the env with cameras={self.cameras}."
            )
        pictures = {
            name: self._resized(convert_image(observation[key], self.image_convention))
            for name, key in self.images.items()
        }
        state = np.array(observation["state"], np.float32)
        return {**pictures, self.state: state, self.task: str(info["task"])}

    def actions(self, chunk: ArrayLike) -> Action:
        """A model's chunk in the env's convention, its first `chunk_steps` actions.

        Args:
            chunk: (T, 7); more than `chunk_steps` only where the preset is not exact.

        Returns:
            float32 (chunk_steps, 7).

        Raises:
            PolicyError: Another shape, a value that is not finite, or out of range.
        """
        try:
            raw = np.asarray(chunk, np.float32)
        except (TypeError, ValueError) as e:
            raise PolicyError(
                f"Expected a chunk of numbers by preset {self.name}, got {type(chunk).__name__}: {e}."
            ) from e
        self._check_shape(raw)
        used = raw[: self.chunk_steps]
        self._check_range(used)
        return convert_gripper(used, self.gripper)

    def _check_shape(self, raw: Action) -> None:
        fits = raw.ndim == 2 and raw.shape[1] == _ACTION_SIZE and len(raw) >= self.chunk_steps
        if not fits or (self.is_exact and len(raw) != self.chunk_steps):
            steps = f"{self.chunk_steps}" if self.is_exact else f"{self.chunk_steps} or more"
            raise PolicyError(
                f"Expected chunks of shape ({steps}, {_ACTION_SIZE}) by preset {self.name}, got {raw.shape}. Choose "
                "the preset that the policy was trained with, or say chunk_steps=… in the spec."
            )

    def _check_range(self, used: Action) -> None:
        low = np.array([-_MOTION_LIMIT] * (_ACTION_SIZE - 1) + [self.gripper_range[0]], np.float32)
        high = np.array([_MOTION_LIMIT] * (_ACTION_SIZE - 1) + [self.gripper_range[1]], np.float32)
        wrong = ~((used >= low) & (used <= high))
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            what = "gripper" if column == _ACTION_SIZE - 1 else f"motion {column}"
            raise PolicyError(
                f"Expected {what} in [{low[column]:g}, {high[column]:g}] by preset {self.name}, got "
                f"{used[row, column]:g} in action {row}. Is the policy of this preset, and its action unnormalised?"
            )

    def _resized(self, frame: Frame) -> Frame:
        if frame.shape[:2] == (self.image_size, self.image_size):
            return frame
        with needs("Resizing pictures for a policy", "video"):
            from PIL import Image

        picture = Image.fromarray(frame)
        size = (self.image_size, self.image_size)
        if self.resize == "bilinear":
            return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
        packed = io.BytesIO()
        picture.save(packed, "JPEG", quality=95)
        return np.asarray(Image.open(packed).resize(size, Image.Resampling.LANCZOS))


_OVERSHOOT = 0.5
"""A gripper head is not clipped; what is meant is one of the two ends."""

PRESETS = {
    preset.name: preset
    for preset in (
        # run_libero_eval.py: 224 pixels by way of a JPEG and Lanczos, 8 actions open-loop, gripper 0 closes, 1 opens.
        PolicyPreset(
            name="openvla_oft",
            images={"full_image": "agentview_image", "wrist_image": "wrist_image"},
            image_convention=ImageConvention.RAW_ROTATED_180,
            image_size=224,
            resize="jpeg_lanczos",
            state="state",
            task="instruction",
            gripper=GripperConvention.ONE_OPENS,
            gripper_range=(-_OVERSHOOT, 1 + _OVERSHOOT),
            chunk_steps=8,
            is_exact=True,
        ),
        # examples/libero/main.py: 224 pixels, bilinear, the first 5 actions of a chunk of 10 or more, LIBERO's gripper.
        PolicyPreset(
            name="openpi",
            images={
                "observation/image": "agentview_image",
                "observation/wrist_image": "wrist_image",
            },
            image_convention=ImageConvention.RAW_ROTATED_180,
            image_size=224,
            resize="bilinear",
            state="observation/state",
            task="prompt",
            gripper=GripperConvention.PLUS_ONE_CLOSES,
            gripper_range=(-1 - _OVERSHOOT, 1 + _OVERSHOOT),
            chunk_steps=5,
            is_exact=False,
        ),
        # processor/env_processor.py, envs/libero.py: 256 pixels, which policies resize themselves; one action at a time
        # unless the policy's n_action_steps says more.
        PolicyPreset(
            name="lerobot",
            images={
                "observation.images.image": "agentview_image",
                "observation.images.image2": "wrist_image",
            },
            image_convention=ImageConvention.RAW_ROTATED_180,
            image_size=256,
            resize="bilinear",
            state="observation.state",
            task="task",
            gripper=GripperConvention.PLUS_ONE_CLOSES,
            gripper_range=(-1 - _OVERSHOOT, 1 + _OVERSHOOT),
            chunk_steps=1,
            is_exact=False,
        ),
    )
}
"""By name."""


def get_preset(name: str) -> PolicyPreset:
    """The preset of this name.

    Raises:
        ConfigError: There is none.
    """
    if name not in PRESETS:
        raise unknown_name("policy preset", name, PRESETS)
    return PRESETS[name]
