"""All engines answer the same requests on one tiny checkpoint alike.

The engines with heavy installs run by `scripts/compare_engines.sh`, which makes their environments and names
their interpreters in VLAC_SWIFT_PYTHON and VLAC_VLLM_PYTHON.
"""

import os
import socket
import subprocess
import time
from pathlib import Path

import agreement
import pytest

from vlac_gym.critic.engines.openai import OpenAIEngine
from vlac_gym.critic.vlac.tiny_checkpoint import make_tiny_checkpoint

pytest.importorskip("torch")
pytest.importorskip("transformers")

TOLERANCE = 1e-3
"""Largest difference of probabilities that engines may have in float32."""

SCRIPT = Path(agreement.__file__)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="module")
def transformers_replies(checkpoint):
    from vlac_gym.critic.engines.transformers import TransformersEngine

    engine = TransformersEngine(checkpoint, device="cpu", dtype="float32", image_preparation="pillow")
    yield engine.generate(agreement.make_requests())
    engine.close()


# The other engines get frames that Pillow resized, hence "pillow"; the default, resizing on the device, is within
# 1/255 of it, which moves these probabilities by up to 1.3e-3.


def report(name, difference):
    print(f"largest difference of probabilities, transformers and {name}: {difference:.2e}")
    return difference


def test_openai_engine_agrees_with_the_transformers_engine(checkpoint, transformers_replies):
    from chat_server import build_app, serve

    with serve(build_app(checkpoint, "tiny")) as url:
        engine = OpenAIEngine(url, "tiny", max_concurrency=2)
        replies = engine.generate(agreement.make_requests())
        engine.close()
    assert report("openai", agreement.largest_difference(transformers_replies, replies)) < TOLERANCE


def test_replies_tell_the_requests_apart(transformers_replies):
    """Else agreement would prove nothing: other frames and texts give other probabilities."""
    with pytest.raises(AssertionError):
        agreement.largest_difference(transformers_replies[:1], transformers_replies[2:3])


def test_order_of_frames_matters(checkpoint, transformers_replies):
    from dataclasses import replace

    from vlac_gym.critic.engines.transformers import TransformersEngine

    pair = agreement.make_requests()[0]
    engine = TransformersEngine(checkpoint, device="cpu", dtype="float32", image_preparation="pillow")
    swapped = engine.generate([replace(pair, frames=pair.frames[::-1])])
    engine.close()
    first, second = (replies[0].tokens[0] for replies in (transformers_replies, swapped))
    known = agreement.probabilities(second)
    assert (
        max(abs(p - known.get(key, 0.0)) for key, p in agreement.probabilities(first).items())
        > 10 * TOLERANCE
    )


@pytest.mark.slow
def test_swift_engine_agrees_with_the_transformers_engine(checkpoint, transformers_replies, tmp_path):
    python = os.environ.get("VLAC_SWIFT_PYTHON")
    if not python:
        pytest.skip("VLAC_SWIFT_PYTHON names no interpreter with ms-swift; run scripts/compare_engines.sh")
    out = tmp_path / "replies.json"
    subprocess.run([python, str(SCRIPT), str(checkpoint), str(out)], check=True, timeout=300)
    replies = agreement.from_json(out.read_text())
    assert report("ms-swift", agreement.largest_difference(transformers_replies, replies)) < TOLERANCE


@pytest.mark.slow
def test_vllm_server_agrees_with_the_transformers_engine(checkpoint, transformers_replies, vllm_url):
    engine = OpenAIEngine(vllm_url, "tiny", timeout_s=120)
    replies = engine.generate(agreement.make_requests())
    engine.close()
    assert report("vLLM", agreement.largest_difference(transformers_replies, replies)) < TOLERANCE


@pytest.fixture
def vllm_url(checkpoint, tmp_path):
    """A real vLLM server, its own engine process included, ended afterwards."""
    python = os.environ.get("VLAC_VLLM_PYTHON")
    if not python:
        pytest.skip("VLAC_VLLM_PYTHON names no interpreter with vLLM; run scripts/compare_engines.sh")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)]
    command += [
        "--served-model-name",
        "tiny",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--dtype",
        "float32",
    ]
    command += ["--max-model-len", "4096", "--max-num-seqs", "4", "--enforce-eager"]
    command += ["--limit-mm-per-prompt", '{"image": 8}']
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    log = tmp_path / "vllm.log"
    with (
        log.open("w") as file,
        subprocess.Popen(command, env=environment, stdout=file, stderr=file) as server,
    ):
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}/health", server, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(60)


def wait_until_healthy(url, server, log):
    import httpx

    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(1)
    pytest.fail(f"vLLM did not start: {log.read_text()[-2000:]}")
