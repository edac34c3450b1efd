"""The OpenAPI description of the bodies, from the structs that encode and check them: `question`, `route`, …"""

__all__ = ["INFO", "STATE", "UPLOAD", "error_responses", "question"]

from typing import Any

from vlac_gym.extras import needs
from vlac_gym.service import protocol
from vlac_gym.service.protocol import CONTENT_TYPE, Operation
from vlac_gym.service.wire_errors import ERROR_REASONS

with needs("A critic server", "serve"):
    from fastapi import Response
    from msgspec.json import schema_components

_SUMMARIES: dict[Operation, str] = {
    "success_prob": "Probability that the task is complete, per frame.",
    "progress": "Signed progress of each pair of frames.",
    "value": "Accumulated completion over the frames of each episode.",
}


def question(operation: Operation) -> dict[str, Any]:
    """Keyword arguments of the route of one operation."""
    statuses = (400, 401, 408, 409, 411, 413, 415, 422, 500, 502, 503, 504)
    request = protocol.REQUESTS[operation]
    return {"summary": _SUMMARIES[operation], **_route(protocol.Reply, *statuses, request=request)}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Response descriptions: for each status the reasons that it may carry."""
    return {status: _error_response(status) for status in statuses}


def _error_response(status: int) -> dict[str, Any]:
    reasons = [reason for reason, (its_status, _) in ERROR_REASONS.items() if its_status == status]
    schema = _schema(protocol.ErrorReply)
    detail = schema["properties"]["error"]["properties"]
    detail["type"] = {"enum": sorted({ERROR_REASONS[reason][1].__name__ for reason in reasons})}
    detail["reason"] = {"enum": reasons}
    return {"description": "; ".join(reasons), "content": _content(schema, CONTENT_TYPE, "application/json")}


def _route(reply: type, *statuses: int, request: type | None = None) -> dict[str, Any]:
    """Keyword arguments of a route; questions are answered in msgpack alone, the rest in JSON too."""
    kinds = [CONTENT_TYPE] if reply is protocol.Reply else [CONTENT_TYPE, "application/json"]
    answer = {"description": "The answer.", "content": _content(_schema(reply), *kinds)}
    route: dict[str, Any] = {
        "response_class": Response,
        "responses": {200: answer, **error_responses(*statuses)},
    }
    if request is not None:
        body = {"required": True, "content": _content(_schema(request), CONTENT_TYPE)}
        route["openapi_extra"] = {"requestBody": body}
    return route


def _content(schema: dict[str, Any], *kinds: str) -> dict[str, Any]:
    return {kind: {"schema": schema} for kind in kinds}


def _schema(kind: type) -> dict[str, Any]:
    """The JSON schema of a struct, its parts written out and its bytes as msgpack has them."""
    (whole,), parts = schema_components([kind], ref_template="{name}")

    def written_out(node: Any) -> Any:
        if isinstance(node, list):
            return [written_out(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return written_out(parts[node["$ref"]])
        if node.get("contentEncoding") == "base64":  # how msgspec's JSON, which is not used, has bytes
            return {"type": "string", "format": "binary", "description": node["description"]}
        return {key: written_out(item) for key, item in node.items()}

    schema: dict[str, Any] = written_out(whole)
    return schema


UPLOAD: dict[str, Any] = {
    "summary": "Store frames for later requests; each digest comes with its pixels.",
    **_route(protocol.Stored, 400, 401, 408, 411, 413, 415, 503, request=protocol.FrameUpload),
}
STATE: dict[str, Any] = _route(protocol.State, 401, 500, 501, 503)
INFO: dict[str, Any] = _route(protocol.Info, 401)
