"""What every request passes before it reaches a route: `RequestMiddleware`, an ASGI middleware.

Request ids, the token, the bound on requests and bytes in work, the refusal during a shutdown, metrics and
one log line per request.
"""

__all__ = ["RequestMiddleware", "error_headers", "wants_json"]

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from vlac_gym.service.core import CriticService
from vlac_gym.service.protocol import CONTENT_TYPE, OPERATIONS
from vlac_gym.service.wire_errors import ServiceError, encode_error

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs"})
"""They tell nothing but that a server is here, and probes and browsers carry no token."""
_QUESTIONS = frozenset(f"/v1/{operation}" for operation in OPERATIONS) | {"/v1/frames"}
_LABELS = _OPEN_PATHS | _QUESTIONS | {"/v1/info", "/v1/sleep", "/v1/wake", "/metrics"}
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass
class _Visit:
    request_id: str
    client: str
    label: str
    body_bytes: int = 0
    status: int = 500
    reason: str = ""


class RequestMiddleware:
    """Wraps the app.

    Args:
        app: What answers the requests that pass.
        service: Whose token, limits and metrics apply.
    """

    def __init__(self, app: AsgiApp, service: CriticService) -> None:
        self._app = app
        self._service = service
        self._token = None if service.config.token is None else _hashed(service.config.token)
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        visit = _Visit(
            request_id=_safe_id(headers.get("x-request-id")) or secrets.token_hex(8),
            client=_safe_id(headers.get("x-vlac-client")) or (scope.get("client") or ("unknown",))[0],
            label=scope["path"] if scope["path"] in _LABELS else "other",
        )
        scope.setdefault("state", {})["visit"] = visit
        started_at = time.perf_counter()

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", visit.request_id.encode())]
            await send(message)

        try:
            self._check(scope, headers, visit)
        except ServiceError as error:
            await self._refuse(error, headers, visit, send_marked)
            self._record(visit, time.perf_counter() - started_at)
            return
        counts = scope["path"] in _QUESTIONS
        self._enter(counts, visit.body_bytes)
        try:
            await self._app(scope, receive, send_marked)
        finally:
            self._enter(counts, -visit.body_bytes, -1)
            self._record(visit, time.perf_counter() - started_at)

    def _check(self, scope: Scope, headers: dict[str, str], visit: _Visit) -> None:
        path, config = scope["path"], self._service.config
        if path not in _OPEN_PATHS:
            self._check_token(headers.get("authorization", ""))
        if scope["method"] == "POST" and self._service.is_draining:
            raise ServiceError("shutting_down", "This server is shutting down.", retry_after_s=1.0)
        if scope["method"] != "POST" or path not in _QUESTIONS:
            return
        if headers.get("content-type") != CONTENT_TYPE or "content-encoding" in headers:
            raise ServiceError(
                "unsupported_media", f"Expected Content-Type: {CONTENT_TYPE} and no Content-Encoding."
            )
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise ServiceError("length_required", "Expected a Content-Length header.")
        if len(length) > 18 or int(length) > config.limits.max_body_bytes:
            raise ServiceError(
                "too_large",
                f"Expected a body of at most {config.limits.max_body_bytes} bytes, got {length[:20]}.",
            )
        visit.body_bytes = int(length)
        in_work = self._service.requests_in_work
        is_full = in_work >= config.limits.max_concurrent_requests
        if is_full or (in_work and self._bytes + visit.body_bytes > config.limits.max_inflight_bytes):
            raise ServiceError(
                "busy",
                f"{in_work} requests with {self._bytes} bytes are in work already.",
                retry_after_s=0.5,
            )

    def _check_token(self, authorization: str) -> None:
        if self._token is None:
            return
        scheme, _, token = authorization.partition(" ")
        # Digests of equal length: the comparison's time tells neither the token nor its length.
        if not hmac.compare_digest(_hashed(token), self._token) or scheme.lower() != "bearer":
            raise ServiceError(
                "unauthorized",
                "Expected the header 'Authorization: Bearer TOKEN' with this server's token. vlac-gym's clients "
                "read it from a file: http://…?token_file=PATH, token_file=PATH or VLAC_GYM_TOKEN_FILE=PATH.",
            )

    def _enter(self, counts: bool, body_bytes: int, step: int = 1) -> None:
        if counts:
            self._service.requests_in_work += step
            self._bytes += body_bytes
            self._service.metrics.requests_in_work.set(self._service.requests_in_work)

    async def _refuse(self, error: ServiceError, headers: dict[str, str], visit: _Visit, send: Send) -> None:
        visit.reason = error.reason
        as_json = wants_json(headers.get("accept", ""))
        body = encode_error(
            error, instance=self._service.instance, request_id=visit.request_id, as_json=as_json
        )
        reply_headers = error_headers(error, as_json) | {"content-length": str(len(body))}
        raw = [(name.encode(), value.encode()) for name, value in reply_headers.items()]
        await send({"type": "http.response.start", "status": error.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    def _record(self, visit: _Visit, seconds: float) -> None:
        metrics = self._service.metrics
        metrics.requests.labels(visit.label, str(visit.status)).inc()
        metrics.request_seconds.labels(visit.label).observe(seconds)
        metrics.body_bytes.inc(visit.body_bytes)
        if visit.status >= 400:
            metrics.failures.labels(visit.reason or "other").inc()
        level = logging.INFO if visit.label in _QUESTIONS or visit.status >= 400 else logging.DEBUG
        logger.log(
            level,
            "request",
            extra={
                "fields": {
                    "request_id": visit.request_id,
                    "client": visit.client,
                    "path": visit.label,
                    "status": visit.status,
                    "reason": visit.reason,
                    "body_bytes": visit.body_bytes,
                    "ms": round(seconds * 1000, 3),
                }
            },
        )


def wants_json(accept: str) -> bool:
    """True unless the caller asked for msgpack: people with curl read JSON."""
    return CONTENT_TYPE not in accept


def error_headers(error: ServiceError, as_json: bool) -> dict[str, str]:
    """Headers of an error reply."""
    headers = {"content-type": "application/json" if as_json else CONTENT_TYPE}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if error.reason == "unauthorized":
        headers["www-authenticate"] = "Bearer"
    if error.reason in ("shutting_down", "slow_body", "too_large"):
        headers["connection"] = "close"
    return headers


def _safe_id(text: str | None) -> str:
    return text if text is not None and _ID.fullmatch(text) else ""


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
