"""Types shared by the parts of vlac_gym: `Frame`, `FloatArray`, `Mode`, `CriticInfo`, `CriticKnowledge`. numpy only."""

__all__ = ["CriticInfo", "CriticKnowledge", "FloatArray", "Frame", "Mode", "fingerprint_of"]

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Frame: TypeAlias = NDArray[np.uint8]
"""One picture: uint8 (H, W, 3), RGB, upright, 0..255."""

FloatArray: TypeAlias = NDArray[np.float32]

Mode = Literal["train", "eval", "shaping"]


@dataclass(frozen=True, kw_only=True)
class CriticKnowledge:
    """What a critic was trained on and may be asked about; None means anything.

    Attributes:
        tasks: Instruction texts, to the letter.
        task_suites: Suites whose scenes it was trained on: another suite may use the same texts.
        views: Cameras, e.g. ``"agentview"``.
        inputs: What it may be shown besides a frame and a text: ``"references"``, ``"goal_image"``.
        renderers: What drew its training pictures, e.g. ``"mujoco 3.3.2"``.
    """

    tasks: tuple[str, ...] | None = None
    task_suites: tuple[str, ...] | None = None
    views: tuple[str, ...] | None = None
    inputs: tuple[str, ...] | None = None
    renderers: tuple[str, ...] | None = None


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
        knows: What it may be asked about; anything by default.
        inputs: Which of `CriticKnowledge.inputs` it shows the model on its own, with no caller's doing.
        fingerprint: Digest of what determines its answers, 16 hex digits; equal for equal judges, whatever the
            machine. By default of name, model, prompt version and the details that are text, number or bool.
    """

    name: str
    model: str = "none"
    prompt_version: str = "none"
    device: str = "cpu"
    is_privileged: bool = False
    details: dict[str, Any] | None = None
    knows: CriticKnowledge = field(default_factory=CriticKnowledge)
    inputs: tuple[str, ...] = ()
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if not self.fingerprint:
            details = sorted((self.details or {}).items())
            # Nested details describe the machine, e.g. a memory plan.
            scalars = {key: value for key, value in details if isinstance(value, str | int | float | bool)}
            facts = [self.name, self.model, self.prompt_version, scalars]
            object.__setattr__(self, "fingerprint", fingerprint_of(facts))


def fingerprint_of(facts: Any) -> str:
    """16 hex digits of JSON-serialisable facts: equal for equal facts."""
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()
