"""The OpenAPI description of the msgpack bodies, built from the tables that the code itself uses."""

__all__ = ["INFO", "QUESTIONS", "STATE", "UPLOAD", "error_responses", "question"]

from typing import Any

from vlac_gym.extras import needs
from vlac_gym.service.client_config import ENCODINGS
from vlac_gym.service.protocol import (
    CONTENT_TYPE,
    DIGEST_BYTES,
    OPERATIONS,
    PROTOCOL_VERSION,
    Operation,
)
from vlac_gym.service.wire_errors import ERROR_REASONS

QUESTIONS: tuple[Operation, ...] = OPERATIONS

_BYTES = {"type": "string", "format": "binary"}
_DIGEST = _BYTES | {"description": f"msgpack bin of {DIGEST_BYTES} bytes (hex in JSON)"}
_PLACES = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0},
    "description": "Places in `digests`.",
}
_REFERENCES = _PLACES | {"nullable": True}
_TASK = {"type": "string"}
_FRAME_FIELDS: dict[str, Any] = {
    "index": {"type": "integer", "minimum": 0, "description": "Place in `digests`."},
    "encoding": {"enum": list(ENCODINGS)},
    "height": {"type": "integer", "minimum": 1},
    "width": {"type": "integer", "minimum": 1},
    "data": _BYTES,
}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """A map with exactly these keys."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_COMMON: dict[str, Any] = {
    "protocol": {"const": PROTOCOL_VERSION},
    "digests": {"type": "array", "items": _DIGEST, "uniqueItems": True},
    "pixels": {
        "type": "array",
        "items": _object(_FRAME_FIELDS),
        "description": "Frames that the server may lack.",
    },
}
_DEADLINE = {"deadline_ms": {"type": "integer", "minimum": 1}}
_TASKS = {"type": "array", "items": _TASK}
_FIELDS: dict[Operation, dict[str, Any]] = {
    "success_prob": {"frames": _PLACES, "tasks": _TASKS},
    "progress": {"before": _PLACES, "after": _PLACES, "tasks": _TASKS, "references": _REFERENCES},
    "value": {
        "episodes": {"type": "array", "items": _PLACES},
        "tasks": _TASKS,
        "references": _REFERENCES,
    },
}
_SUMMARIES: dict[Operation, str] = {
    "success_prob": "Probability that the task is complete, per frame.",
    "progress": "Signed progress of each pair of frames.",
    "value": "Accumulated completion over the frames of each episode.",
}
_REPLY = _object(
    {
        "protocol": {"const": PROTOCOL_VERSION},
        "values": _BYTES | {"description": "Little-endian float32, one per frame or pair, in order."},
        "instance": {"type": "string"},
        "critic": {"type": "string"},
        "queue_ms": {"type": "number"},
        "model_ms": {"type": "number"},
        "batch": {"type": "integer"},
    }
)


def question(operation: Operation) -> dict[str, Any]:
    """Keyword arguments of the route of one operation."""
    schema = _object(_COMMON | _DEADLINE | _FIELDS[operation])
    statuses = (400, 401, 408, 409, 411, 413, 415, 422, 500, 502, 503, 504)
    return {"summary": _SUMMARIES[operation], **_route(schema, _REPLY, *statuses)}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Response descriptions: for each status the reasons that it may carry."""
    return {status: _error_response(status) for status in statuses}


def _error_response(status: int) -> dict[str, Any]:
    reasons = [reason for reason, (its_status, _) in ERROR_REASONS.items() if its_status == status]
    detail = {
        "type": "object",
        "properties": {
            "type": {"enum": sorted({ERROR_REASONS[reason][1].__name__ for reason in reasons})},
            "reason": {"enum": reasons},
            "message": {"type": "string"},
            "request_id": {"type": "string"},
            "retry_after_s": {"type": "number"},
            "missing": {"type": "array", "items": _DIGEST},
        },
        "required": ["type", "reason", "message", "request_id"],
    }
    schema = _object(
        {"protocol": {"const": PROTOCOL_VERSION}, "error": detail, "instance": {"type": "string"}}
    )
    content = {CONTENT_TYPE: {"schema": schema}, "application/json": {"schema": schema}}
    return {"description": "; ".join(reasons), "content": content}


def _route(body: dict[str, Any] | None, reply: dict[str, Any], *statuses: int) -> dict[str, Any]:
    with needs("A critic server", "serve"):
        from fastapi import Response

    content = {CONTENT_TYPE: {"schema": reply}}
    if reply is not _REPLY:
        content["application/json"] = {"schema": reply}
    route: dict[str, Any] = {
        "response_class": Response,
        "responses": {200: {"description": "The answer.", "content": content}, **error_responses(*statuses)},
    }
    if body is not None:
        request_body = {"required": True, "content": {CONTENT_TYPE: {"schema": body}}}
        route["openapi_extra"] = {"requestBody": request_body}
    return route


UPLOAD: dict[str, Any] = {
    "summary": "Store frames for later requests; each digest comes with its pixels.",
    **_route(
        _object(_COMMON),
        _object(
            {
                "protocol": {"const": PROTOCOL_VERSION},
                "stored": {"type": "integer"},
                "instance": {"type": "string"},
            }
        ),
        *(400, 401, 408, 411, 413, 415, 503),
    ),
}
STATE: dict[str, Any] = _route(
    None,
    _object(
        {
            "protocol": {"const": PROTOCOL_VERSION},
            "state": {"enum": ["awake", "asleep"]},
            "has_sleep": {"type": "boolean", "description": "False if the critic holds no such memory."},
        }
    ),
    *(401, 500, 501, 503),
)
INFO: dict[str, Any] = _route(
    None,
    _object(
        {
            "protocol": {"const": PROTOCOL_VERSION},
            "instance": {"type": "string"},
            "critic": {"type": "string"},
            "state": {"enum": ["loading", "awake", "asleep", "shutting_down", "closed"]},
            "info": {"type": "object"},
            "limits": {"type": "object"},
            "max_batch": {"type": "integer"},
            "frame_store_bytes": {"type": "integer"},
            "gpu_memory_bytes": {
                "type": "number",
                "description": "Held by torch in this process; 0 without a GPU.",
            },
            "server_version": {"type": "string"},
        }
    ),
    401,
)
