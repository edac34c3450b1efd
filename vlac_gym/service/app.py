"""The HTTP face of a critic: `create_app` makes a FastAPI app of a `CriticService`."""

__all__ = ["create_app"]

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from vlac_gym import __version__
from vlac_gym.extras import needs
from vlac_gym.service.api_schema import INFO, STATE, UPLOAD, error_responses, question
from vlac_gym.service.core import CriticService
from vlac_gym.service.messages import WireFormatError, pack, pack_json
from vlac_gym.service.middleware import RequestMiddleware, error_headers, wants_json
from vlac_gym.service.protocol import CONTENT_TYPE, OPERATIONS, PROTOCOL_VERSION, Operation, State, Stored
from vlac_gym.service.wire_errors import ServiceError, classify, encode_error

with needs("A critic server", "serve"):
    from fastapi import FastAPI, Request, Response
    from msgspec import Struct
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

logger = logging.getLogger(__name__)

_HTTP_REASONS = {404: "not_found", 405: "method_not_allowed"}


def create_app(
    service: CriticService,
    on_loaded: Callable[[BaseException | None], None] | None = None,
    *,
    loads_first: bool = False,
) -> FastAPI:
    """Builds the ASGI app; the critic is loaded when it starts and freed when it stops.

    Args:
        service: What answers.
        on_loaded: Called once the critic is loaded, with None, or with the reason why it can't be.
        loads_first: Load before the app counts as started, for hosts that send requests only then.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.load(), name="load")
        loading.add_done_callback(_on_loaded)
        if loads_first:
            await loading
        yield
        loading.cancel()
        await asyncio.wait([loading])
        await service.batcher.close()

    def _on_loaded(loading: asyncio.Task[None]) -> None:
        if loading.cancelled():
            return
        error = loading.exception()
        if error is None:
            logger.info("the critic is loaded")
        else:
            logger.error("the critic could not be loaded: %s", error)
        if on_loaded is not None:
            on_loaded(error)

    app = FastAPI(
        title="vlac-gym critic",
        version=__version__,
        description=f"Protocol {PROTOCOL_VERSION}: msgpack bodies, frames by digest. See docs/service.md.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.add_middleware(RequestMiddleware, service=service)
    _add_questions(app, service)
    _add_control(app, service)
    _add_probes(app, service)
    _add_error_handlers(app, service)
    return app


def _add_questions(app: FastAPI, service: CriticService) -> None:
    def add(operation: Operation) -> None:
        @app.post(f"/v1/{operation}", operation_id=operation, **question(operation))
        async def judge(request: Request) -> Response:
            body = await _read_body(request, service)
            reply = await service.judge(operation, body, request.state.visit.client)
            return Response(pack(reply), media_type=CONTENT_TYPE)

    for operation in OPERATIONS:
        add(operation)

    @app.post("/v1/frames", operation_id="frames", **UPLOAD)
    async def frames(request: Request) -> Response:
        count = await service.store_frames(await _read_body(request, service))
        return _reply(request, Stored(count, service.instance))


def _add_control(app: FastAPI, service: CriticService) -> None:
    def state(request: Request, released: bool) -> Response:
        return _reply(request, State(service.batcher.state, released))

    def check_lone() -> None:
        if service.config.replicas > 1:
            raise ServiceError(
                "unsupported",
                f"One of {service.config.replicas} replicas would sleep. Serve one replica per URL and give the "
                "client all URLs: it puts every one of them to sleep.",
            )

    @app.post("/v1/sleep", operation_id="sleep", summary="Free the GPU's memory; questions wait.", **STATE)
    async def sleep(request: Request) -> Response:
        check_lone()
        return state(request, await service.batcher.sleep())

    @app.post("/v1/wake", operation_id="wake", summary="Bring the model back.", **STATE)
    async def wake(request: Request) -> Response:
        check_lone()
        return state(request, await service.batcher.wake())

    @app.get("/v1/info", operation_id="info", summary="What this server is and accepts.", **INFO)
    async def info(request: Request) -> Response:
        return _reply(request, service.describe())


def _add_probes(app: FastAPI, service: CriticService) -> None:
    @app.get("/healthz", operation_id="healthz", summary="200 while the process answers.")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/readyz",
        operation_id="readyz",
        summary="200 once the model is loaded and awake.",
        responses=error_responses(503),
    )
    async def readyz() -> dict[str, str]:
        if not service.is_ready:
            if service.is_draining:
                raise ServiceError("shutting_down", "This server is shutting down.", retry_after_s=1.0)
            raise service.batcher.unavailable()
        return {"status": "ready"}

    @app.get(
        "/metrics",
        operation_id="metrics",
        summary="Prometheus metrics.",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **error_responses(401)},
    )
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4")


def _add_error_handlers(app: FastAPI, service: CriticService) -> None:
    def reply(request: Request, error: ServiceError) -> Response:
        visit = request.state.visit
        visit.reason = error.reason
        as_json = wants_json(request.headers.get("accept", ""))
        body = encode_error(error, instance=service.instance, request_id=visit.request_id, as_json=as_json)
        return Response(body, error.status, headers=error_headers(error, as_json))

    async def typed(request: Request, error: Exception) -> Response:
        return reply(request, classify(error))

    async def http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        reason = _HTTP_REASONS.get(status, "malformed" if status < 500 else "internal")
        return reply(request, ServiceError(reason, f"{request.method} {request.url.path[:80]}: {reason}."))

    async def gone(request: Request, error: Exception) -> Response:
        return reply(request, ServiceError("malformed", "The connection broke before the body ended."))

    async def internal(request: Request, error: Exception) -> Response:
        return reply(request, ServiceError("internal", f"{type(error).__name__} in the server; see its log."))

    app.add_exception_handler(ServiceError, typed)
    app.add_exception_handler(WireFormatError, typed)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, internal)


async def _read_body(request: Request, service: CriticService) -> bytes:
    """The whole body, within the time and the size that its header promised and `RequestMiddleware` checked."""
    expected = request.state.visit.body_bytes
    chunks: list[bytes] = []
    received = 0
    try:
        async with asyncio.timeout(service.config.body_timeout_s):
            async for chunk in request.stream():
                chunks.append(chunk)
                received += len(chunk)
                if received > expected:
                    break
    except TimeoutError:
        raise ServiceError(
            "slow_body", f"Only {received} of {expected} bytes came in {service.config.body_timeout_s:g} s."
        ) from None
    if received != expected:
        raise ServiceError("malformed", f"Expected the {expected} bytes of Content-Length, got {received}.")
    return b"".join(chunks)


def _reply(request: Request, message: Struct) -> Response:
    if wants_json(request.headers.get("accept", "")):
        return Response(pack_json(message), media_type="application/json")
    return Response(pack(message), media_type=CONTENT_TYPE)
