"""Everything that the next step of a LIBERO simulator depends on, as a value and as bytes: `Moment`."""

__all__ = ["Moment"]

import hashlib
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.types import Frame

_CONTROLLER = "controller."


@dataclass(frozen=True)
class Moment:
    """Everything the next step depends on, and pictures of it.

    Attributes:
        physics: float64 (n,), MuJoCo's ``mjSTATE_INTEGRATION``.
        control: What `ArmControl.snapshot` gave.
        frames: Pictures already rendered of it, by camera; no part of its bytes or its digest.
    """

    physics: NDArray[np.float64]
    control: dict[str, Any]
    frames: dict[str, Frame] = field(default_factory=dict)

    def digest(self) -> str:
        """SHA-256 in hex of every number in it, with the arrays' order in memory, which linear algebra rounds by."""
        whole = hashlib.sha256()
        values = {"physics": self.physics, "grip": self.control["grip"], **self.control["controller"]}
        for name, value in sorted(values.items()):
            whole.update(name.encode() + _content(value))
        return whole.hexdigest()

    def to_bytes(self, built: "Moment") -> bytes:
        """What differs from the simulator's first moment; `from_bytes` needs that one again."""
        first = built.control["controller"]
        arrays: dict[str, Any] = {
            _CONTROLLER + name: np.asarray(value)
            for name, value in self.control["controller"].items()
            if _content(value) != _content(first[name])
        }
        assert not any(array.dtype.hasobject for array in arrays.values())
        buffer = io.BytesIO()
        np.savez(buffer, physics=self.physics, grip=self.control["grip"], **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, built: "Moment") -> "Moment":
        """What `to_bytes` was given, to the bit, without pictures.

        Args:
            data: From `to_bytes`.
            built: A first moment of the same digest.
        """
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        controller = {
            name.removeprefix(_CONTROLLER): array if array.ndim else array.item()
            for name, array in arrays.items()
            if name.startswith(_CONTROLLER)
        }
        control = {"controller": built.control["controller"] | controller, "grip": arrays["grip"]}
        return cls(arrays["physics"], control)


def _content(value: Any) -> bytes:
    """All that tells a value from others, its arrangement in memory included."""
    if isinstance(value, np.ndarray):
        return f" {value.dtype} {value.shape} {value.strides} ".encode() + value.tobytes()
    return f" {value!r} ".encode()
