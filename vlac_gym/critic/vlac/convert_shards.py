"""Reads and writes safetensors files one tensor at a time: `TensorEntry`, `read_header`, `read_rows`, `ShardWriter`.

The format is an 8-byte little-endian length, a JSON header of that length and the tensors' bytes, row-major
(https://github.com/huggingface/safetensors#format). The library's own writer holds a copy of every tensor of a
file; this one holds one tensor, whatever its dtype, so that a conversion needs no memory for the model.
"""

__all__ = ["ShardWriter", "TensorEntry", "read_header", "read_rows"]

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError

_DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Floating dtypes that weights come in; quantised checkpoints have another layout and are refused."""

_MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies.

    Attributes:
        path: The safetensors file.
        dtype: The format's dtype name, e.g. `BF16`.
        shape: The tensor's shape.
        offset: Its first byte in the file.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * _DTYPE_BYTES[self.dtype]


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file by name, in the order of their bytes.

    Raises:
        ConfigError: The file is not a well-formed safetensors file of floating-point tensors.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            raise ConfigError(f"Expected a safetensors file at {path}, got {size} bytes with no such header.")
        try:
            header = json.loads(file.read(length))
            entries = {
                name: _entry(path, name, facts, 8 + length)
                for name, facts in header.items()
                if name != "__metadata__"
            }
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
            if isinstance(e, ConfigError):
                raise
            raise ConfigError(f"The header of the safetensors file {path} does not parse: {e}.") from e
    end = 8 + length
    ordered = dict(sorted(entries.items(), key=lambda item: item[1].offset))
    for name, entry in ordered.items():
        if entry.offset != end:
            raise ConfigError(f"Tensor {name!r} in {path} starts at byte {entry.offset}, expected {end}.")
        end += entry.num_bytes
    if end != size:
        raise ConfigError(f"Expected {end} bytes in {path}, got {size}; the file is cut short or has a tail.")
    return ordered


def _entry(path: Path, name: str, facts: dict[str, object], data_start: int) -> TensorEntry:
    dtype, shape, offsets = facts["dtype"], facts["shape"], facts["data_offsets"]
    if dtype not in _DTYPE_BYTES:
        raise ConfigError(
            f"Expected tensor {name!r} in {path} as one of {', '.join(_DTYPE_BYTES)}, got {dtype!r}. "
            "Convert the unquantised checkpoint."
        )
    if not isinstance(shape, list) or not isinstance(offsets, list):
        raise ConfigError(f"Tensor {name!r} in {path} has no shape or no offsets.")
    begin, end = map(int, offsets)
    entry = TensorEntry(path, str(dtype), tuple(map(int, shape)), data_start + begin)
    if min(entry.shape, default=1) < 0 or end - begin != entry.num_bytes:
        raise ConfigError(f"Tensor {name!r} in {path}: {end - begin} bytes do not fit {dtype} {entry.shape}.")
    return entry


def read_rows(entry: TensorEntry) -> NDArray[np.uint8]:
    """The bytes of a tensor as uint8 (rows, bytes per row); a row is one index of the first axis."""
    rows = entry.shape[0] if entry.shape else 1
    with entry.path.open("rb") as file:
        file.seek(entry.offset)
        data = np.fromfile(file, dtype=np.uint8, count=entry.num_bytes)
    return data.reshape(rows, -1)


class ShardWriter:
    """Writes one safetensors file whose tensors are known beforehand and arrive in that order.

    Example:
        >>> import tempfile, numpy as np
        >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
        >>> with ShardWriter(path, {"x": ("F32", (2, 1))}) as writer:
        ...     writer.write("x", np.zeros((2, 4), np.uint8))
        >>> read_header(path)["x"].shape
        (2, 1)
    """

    def __init__(self, path: Path, tensors: Mapping[str, tuple[str, Sequence[int]]]) -> None:
        """Opens the file and writes its header.

        Args:
            path: File to create.
            tensors: Name -> (dtype name, shape), in the order in which `write` will be called.
        """
        self._path = path
        self._left = {
            name: math.prod(shape) * _DTYPE_BYTES[dtype] for name, (dtype, shape) in tensors.items()
        }
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name, (dtype, shape) in tensors.items():
            end = offset + self._left[name]
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # readers map the data, which should start at a multiple of 8
        self._file: BinaryIO = path.open("xb")
        self._file.write(len(text).to_bytes(8, "little") + text)

    def write(self, name: str, rows: NDArray[np.uint8]) -> None:
        """Writes the next tensor's bytes.

        Raises:
            ConfigError: Another tensor is next, or the size is not the one announced.
        """
        expected = next(iter(self._left), None)
        if name != expected or rows.nbytes != self._left[name]:
            raise ConfigError(
                f"Expected tensor {expected!r} of {self._left.get(str(expected))} bytes next in {self._path}, "
                f"got {name!r} of {rows.nbytes}."
            )
        del self._left[name]
        np.ascontiguousarray(rows).tofile(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None and self._left:
            raise ConfigError(f"{self._path} lacks the tensors {', '.join(self._left)}.")
