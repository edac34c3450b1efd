"""The server that anybody would write first: FastAPI, JSON, one base64 PNG per request, a lock around the model."""

import base64
import io
import multiprocessing
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

import httpx
import numpy as np
from PIL import Image
from timed_critic import register_timed, warm_up

from vlac_gym.critic.base import Critic
from vlac_gym.critic.registry import make_critic

OBVIOUS = {
    "generate": "base64 JSON, a frame each, `generate`",
    "engine": "the same on this package's engine",
    "warm engine": "the same, warmed up",
}
"""What the obvious server runs -> its row. `generate` is transformers' own, one request after the other, as the VLAC
reference does it; it needs a `transformers:` critic."""


def obvious_critic(spec: str, model: str) -> Critic:
    """The critic of the obvious server."""
    if model != "generate":
        critic = make_critic(spec)
        if model == "warm engine":
            warm_up(critic)
        return critic
    from vlac_gym.critic.engines.plain_transformers import PlainTransformersEngine
    from vlac_gym.critic.vlac.critic import VLACConfig, VLACCritic

    path, _, query = spec.removeprefix("transformers:").partition("?")
    options = dict(pair.split("=") for pair in query.split(",") if pair)
    where = {name: options[name] for name in ("device", "dtype") if name in options}
    return VLACCritic(PlainTransformersEngine(path, **where), VLACConfig(out_of_scale="clip"))


def to_base64(frame: np.ndarray) -> str:
    """A PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def from_base64(text: str) -> np.ndarray:
    """The frame in a base64 PNG."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def serve_naively(spec: str, model: str, port: int) -> None:
    """The obvious server: FastAPI, JSON, one frame per request, a lock around the model."""
    import uvicorn
    from fastapi import Body, FastAPI

    register_timed()
    critic, lock, app = obvious_critic(spec, model), threading.Lock(), FastAPI()

    @app.post("/done")
    def done(image: str = Body(), task: str = Body()) -> dict[str, float]:
        frame = from_base64(image)
        with lock:
            return {"prob": float(critic.success_prob([frame], [task])[0])}

    @app.post("/value")
    def value(images: list[str] = Body(), task: str = Body()) -> dict[str, list[float]]:  # noqa: B008
        frames = [from_base64(image) for image in images]
        with lock:
            return {"values": critic.value(frames, task).tolist()}

    @app.get("/")
    def ready() -> str:
        return "ready"

    uvicorn.run(app, port=port, log_level="error")


@contextmanager
def naive_server(spec: str, model: str) -> Iterator[str]:
    """The obvious server as a process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=serve_naively, args=(spec, model, port))
    process.start()
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.join()


def _wait_until_ready(url: str, process: BaseProcess) -> None:
    for _ in range(600):
        try:
            httpx.get(url, trust_env=False)
            return
        except httpx.TransportError:
            if not process.is_alive():
                sys.exit(f"The obvious server did not start; it ended with {process.exitcode}.")
            time.sleep(0.5)
    sys.exit("The obvious server was not ready in 300 s.")
