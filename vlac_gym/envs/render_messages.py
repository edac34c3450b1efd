"""What workers and a render process tell each other: requests, and a reply to `OpenModel`, `LoadModel` and `Draw`.

A descriptor follows a `LoadModel` (the model, as ``mj_saveModel`` writes it) and an `AddMemory` (a `PictureMemory`).
"""

__all__ = [
    "GONE",
    "AddMemory",
    "CloseModel",
    "Draw",
    "Drawn",
    "LoadModel",
    "ModelReply",
    "OpenModel",
    "Reply",
    "Request",
]

from typing import NamedTuple

GONE = (EOFError, OSError)
"""What a pipe raises when the process at its other end is gone."""


class OpenModel(NamedTuple):
    """Pictures of a model will be asked for."""

    key: str


class LoadModel(NamedTuple):
    """The model, after a reply that wants it."""

    key: str


class CloseModel(NamedTuple):
    """No more pictures of a model; its memories go."""

    key: str


class AddMemory(NamedTuple):
    """Memory for pictures of a model, of one size."""

    number: int
    key: str
    size: int


class Draw(NamedTuple):
    """Draw the state in a memory."""

    number: int
    camera: str


class ModelReply(NamedTuple):
    """A model is there, or wanted, or cannot be loaded."""

    key: str
    is_wanted: bool = False
    error: str | None = None


class Drawn(NamedTuple):
    """The picture is in its memory, or cannot be drawn."""

    number: int
    error: str | None = None


Request = OpenModel | LoadModel | CloseModel | AddMemory | Draw
Reply = ModelReply | Drawn
