"""Types shared by the parts of vlac_gym: `Frame`, `FloatArray`, `Mode`, `CriticInfo`. numpy only."""

__all__ = ["CriticInfo", "FloatArray", "Frame", "Mode"]

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Frame: TypeAlias = NDArray[np.uint8]
"""One picture: uint8 (H, W, 3), RGB, upright, 0..255."""

FloatArray: TypeAlias = NDArray[np.float32]

Mode = Literal["train", "eval", "shaping"]


@dataclass(frozen=True)
class CriticInfo:
    """What a critic says about itself.

    Attributes:
        name: Registry name, e.g. ``"oracle"`` or ``"transformers"``.
        model: Checkpoint path, URL or ``"none"``.
        prompt_version: Version of the prompt set, ``"none"`` for critics without prompts.
        device: ``"cpu"``, ``"cuda:0"``, ``"remote"``.
        is_privileged: True if the critic reads the simulator's state and not only pictures.
        details: More facts for logs; JSON-serialisable.
    """

    name: str
    model: str = "none"
    prompt_version: str = "none"
    device: str = "cpu"
    is_privileged: bool = False
    details: dict[str, Any] | None = None
