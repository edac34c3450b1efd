"""Errors on the wire: `reason` -> HTTP status and exception, one table for both sides.

Public names: `ERROR_REASONS`, `ServiceError`, `MissingFramesError`, `classify`, `encode_error`, `decode_error`.
"""

__all__ = [
    "ERROR_REASONS",
    "MissingFramesError",
    "ServiceError",
    "classify",
    "decode_error",
    "encode_error",
]

from collections.abc import Sequence

from vlac_gym.errors import (
    ConfigError,
    CriticConnectionError,
    CriticError,
    CriticOverloadedError,
    CriticProtocolError,
    CriticResponseError,
    CriticServerError,
    CriticTimeoutError,
    VlacGymError,
)
from vlac_gym.extras import needs
from vlac_gym.service.messages import WireFormatError, pack, pack_json, unpack
from vlac_gym.service.protocol import DIGEST_BYTES, PROTOCOL_VERSION, ErrorDetail, ErrorReply

with needs("A critic server's client", "client"):
    from msgspec import UNSET

ERROR_REASONS: dict[str, tuple[int, type[VlacGymError]]] = {
    "malformed": (400, CriticProtocolError),
    "protocol_version": (400, CriticProtocolError),
    "bad_frame": (400, CriticProtocolError),
    "unauthorized": (401, ConfigError),
    "not_found": (404, CriticProtocolError),
    "method_not_allowed": (405, CriticProtocolError),
    "slow_body": (408, CriticTimeoutError),
    "missing_frames": (409, CriticProtocolError),
    "length_required": (411, CriticProtocolError),
    "too_large": (413, ConfigError),
    "unsupported_media": (415, CriticProtocolError),
    "invalid_input": (422, ConfigError),
    "model_failed": (500, CriticServerError),
    "out_of_memory": (500, CriticServerError),
    "internal": (500, CriticServerError),
    "unsupported": (501, ConfigError),
    "no_number": (502, CriticResponseError),
    "upstream_protocol": (502, CriticProtocolError),
    "upstream_connection": (502, CriticConnectionError),
    "queue_full": (503, CriticOverloadedError),
    "asleep": (503, CriticOverloadedError),
    "loading": (503, CriticOverloadedError),
    "shutting_down": (503, CriticOverloadedError),
    "busy": (503, CriticOverloadedError),
    "upstream_overloaded": (503, CriticOverloadedError),
    "deadline": (504, CriticTimeoutError),
    "upstream_timeout": (504, CriticTimeoutError),
}
"""Every `reason` -> (HTTP status, exception that the client raises)."""

_CRITIC_REASONS: tuple[tuple[type[VlacGymError], str], ...] = (
    (ConfigError, "invalid_input"),
    (CriticResponseError, "no_number"),
    (CriticConnectionError, "upstream_connection"),
    (CriticTimeoutError, "upstream_timeout"),
    (CriticOverloadedError, "upstream_overloaded"),
    (CriticProtocolError, "upstream_protocol"),
)
"""What the critic behind the server raised -> reason; other errors are `model_failed`."""

_MAX_MESSAGE_CHARS = 2000
_STATUS_FALLBACK: dict[int, type[CriticError]] = {
    408: CriticTimeoutError,
    429: CriticOverloadedError,
    502: CriticConnectionError,
    503: CriticOverloadedError,
    504: CriticTimeoutError,
}
"""For replies that are not ours, e.g. from a proxy in between."""


class ServiceError(Exception):
    """An answer that is an error: what the server sends instead of numbers."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        retry_after_s: float | None = None,
        missing: Sequence[bytes] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.status, self.exception = ERROR_REASONS[reason]
        self.retry_after_s = retry_after_s
        self.missing = tuple(missing)


class MissingFramesError(CriticProtocolError):
    """The server lacks frames that the request did not attach; `digests` names them."""

    def __init__(self, message: str, digests: Sequence[bytes]) -> None:
        super().__init__(message)
        self.digests = tuple(digests)


def classify(error: BaseException) -> ServiceError:
    """The wire error for whatever a request ran into; never carries a traceback."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, WireFormatError):
        return ServiceError(error.reason, str(error))
    for kind, reason in _CRITIC_REASONS:
        if isinstance(error, kind):
            retry_after_s = getattr(error, "retry_after_s", None)
            return ServiceError(reason, str(error), retry_after_s=retry_after_s)
    if is_out_of_memory(error):
        return ServiceError("out_of_memory", f"The critic ran out of memory: {_first_line(error)}")
    return ServiceError("model_failed", f"The critic failed: {_first_line(error)}")


def is_out_of_memory(error: BaseException | None) -> bool:
    """True for `MemoryError`, torch's `OutOfMemoryError` (known by name: torch may be absent), and their wraps."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        error = error.__cause__
    return False


def encode_error(error: ServiceError, *, instance: str, request_id: str, as_json: bool = False) -> bytes:
    """The body of an error reply: msgpack, or JSON with digests in hex for people with curl."""
    detail = ErrorDetail(
        type=error.exception.__name__,
        reason=error.reason,
        message=str(error)[:_MAX_MESSAGE_CHARS],
        request_id=request_id,
        retry_after_s=UNSET if error.retry_after_s is None else float(error.retry_after_s),
        missing=error.missing or UNSET,
    )
    message = ErrorReply(detail, instance)
    return pack_json(message) if as_json else pack(message)


def decode_error(status: int, body: bytes, where: str, retry_after: str | None = None) -> VlacGymError:
    """The exception for a reply whose status is not 200.

    Args:
        status: HTTP status.
        body: The reply; anything, if something else than our server answered.
        where: URL, for the message.
        retry_after: The reply's `Retry-After` header.
    """
    try:
        message = unpack(body)
    except WireFormatError:
        message = {}
    detail = message.get("error")
    if not isinstance(detail, dict) or not isinstance(detail.get("reason"), str):
        return _foreign_error(status, body, where, retry_after)
    version = message.get("protocol")
    if version != PROTOCOL_VERSION:
        return CriticProtocolError(f"{where} speaks protocol {version!r}, this client {PROTOCOL_VERSION}.")
    reason = detail["reason"]
    text = f"{where} answered {status} {reason}: {detail.get('message')} [request {detail.get('request_id')}]"
    missing = detail.get("missing")
    if reason == "missing_frames" and isinstance(missing, list):
        return MissingFramesError(
            text, [d for d in missing if isinstance(d, bytes) and len(d) == DIGEST_BYTES]
        )
    _, kind = ERROR_REASONS.get(reason, (status, _kind_of(status)))
    if kind is CriticOverloadedError:
        seconds = detail.get("retry_after_s")
        return CriticOverloadedError(text, seconds if isinstance(seconds, float) else _seconds(retry_after))
    return kind(text)


def _foreign_error(status: int, body: bytes, where: str, retry_after: str | None) -> VlacGymError:
    text = body[:200].decode("utf-8", "replace")
    message = (
        f"{where} answered {status}, not in the critic protocol: {text!r}. Is it a vlac-gym critic server?"
    )
    kind = _kind_of(status)
    if kind is CriticOverloadedError:
        return CriticOverloadedError(message, _seconds(retry_after))
    return kind(message)


def _kind_of(status: int) -> type[VlacGymError]:
    return _STATUS_FALLBACK.get(status, CriticServerError if status >= 500 else CriticProtocolError)


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` as seconds; its date form is not used by this service and counts as absent."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 3600 else None


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
