"""Messages to bytes, and msgpack that a stranger wrote to structs: `pack`, `pack_json`, `unpack`, `fit`.

msgspec would read msgpack too, but keeps the last of repeated keys and has no bound on the entries of nested lists.
"""

__all__ = ["MALFORMED", "WireFormatError", "fit", "pack", "pack_json", "shown", "unpack"]

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from vlac_gym.errors import CriticProtocolError
from vlac_gym.extras import needs

with needs("A critic server's client", "client"):
    import msgpack
    import msgspec

_T = TypeVar("_T")

MALFORMED = "malformed"


class WireFormatError(CriticProtocolError):
    """Bytes that are not a message of this protocol; `reason` names the rule that they break."""

    def __init__(self, message: str, reason: str = MALFORMED) -> None:
        super().__init__(message)
        self.reason = reason


def pack(message: msgspec.Struct | Mapping[str, Any]) -> bytes:
    """One message as msgpack bytes, its fields in the order of the struct."""
    return msgspec.msgpack.encode(message)


def pack_json(message: msgspec.Struct) -> bytes:
    """One message for people with curl: JSON, bytes in hex."""
    return json.dumps(msgspec.to_builtins(message, builtin_types=(bytes,)), default=bytes.hex).encode()


def unpack(body: bytes, max_items: int = 2**16) -> dict[str, Any]:
    """One msgpack map with text keys; no extension types, no repeated keys, nothing after it.

    Args:
        body: The bytes.
        max_items: Bound on all list and map entries together, at any depth: one byte of msgpack can
            make a 64-byte object, so the size of the body alone does not bound the memory.

    Raises:
        WireFormatError: The bytes are anything else.
    """
    counter = _ItemCounter(max_items)
    try:
        message = msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            max_ext_len=0,
            max_array_len=max_items,
            max_map_len=64,
            list_hook=counter.count_list,
            object_pairs_hook=counter.count_map,
        )
    except WireFormatError:
        raise
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as e:
        raise WireFormatError(f"The body is not one msgpack message: {type(e).__name__}.") from e
    if not isinstance(message, dict):
        raise WireFormatError(f"Expected a map at the top, got {type(message).__name__}.")
    return message


class _ItemCounter:
    """Stops unpacking once lists and maps hold more entries than any honest message."""

    def __init__(self, max_items: int) -> None:
        self._left = max_items

    def count_list(self, items: list[Any]) -> list[Any]:
        self._left -= len(items) + 1
        if self._left < 0:
            raise WireFormatError("The message holds too many entries.", "too_large")
        return items

    def count_map(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self.count_list(pairs)
        message = dict(pairs)
        # strict_map_key lets bytes pass too, which neither sort nor print beside text.
        if not all(isinstance(key, str) for key in message):
            raise WireFormatError("A map has a key that is no text.")
        if len(message) != len(pairs):
            raise WireFormatError("A map has the same key twice.")
        return message


def fit(kind: type[_T], message: Mapping[str, Any], what: str) -> _T:
    """An unpacked message as the struct that it must be, down to the type and range of each field.

    Raises:
        WireFormatError: It is not; names the field.
    """
    try:
        # bytes as they are: text in their place is no base64
        return msgspec.convert(message, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as e:
        raise WireFormatError(f"Not {what}: {e}.") from None


def shown(thing: object) -> str:
    """A short form of what came over the wire, fit for a message."""
    text = repr(thing)
    return text if len(text) <= 60 else f"{type(thing).__name__} {text[:40]}…"
