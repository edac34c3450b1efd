"""An app in the tests' own process: `running`, and how its bodies are made and its errors read."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx

from vlac_gym.critic.base import frame_digest
from vlac_gym.service.app import create_app
from vlac_gym.service.core import CriticService, ServiceConfig
from vlac_gym.service.frame_codec import encode_frame
from vlac_gym.service.messages import pack, unpack
from vlac_gym.service.protocol import Pixels, ProgressRequest, SuccessProbRequest, ValueRequest

HEADERS = {"content-type": "application/msgpack", "accept": "application/msgpack"}


@contextlib.asynccontextmanager
async def running(critic, **options) -> AsyncIterator[tuple[httpx.AsyncClient, CriticService]]:
    """A client of an app in this process, once its critic is loaded."""
    service = CriticService(lambda: critic, ServiceConfig(**options))
    app = create_app(service)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://s") as client,
    ):
        while service.batcher.state == "loading" and service.load_error is None:
            await asyncio.sleep(0.001)
        yield client, service


def request_body(
    frames, operation="success_prob", task="t", attach=True, deadline_ms=5000, after=(), references=None
) -> bytes:
    digests = tuple(frame_digest(frame) for frame in frames)
    pixels = Pixels.of({i: encode_frame(frame) for i, frame in enumerate(frames)} if attach else {})
    places, tasks = tuple(range(len(frames))), (task,) * len(frames)
    if operation == "success_prob":
        return pack(SuccessProbRequest(deadline_ms, digests, pixels, places, tasks))
    if operation == "progress":
        return pack(ProgressRequest(deadline_ms, digests, pixels, places, after, tasks, references))
    return pack(ValueRequest(deadline_ms, digests, pixels, (places,), (task,), references))


async def post(client, body, operation="success_prob", **headers) -> httpx.Response:
    return await client.post(f"/v1/{operation}", content=body, headers=HEADERS | headers)


def reason_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, unpack(response.content)["error"]["reason"]
