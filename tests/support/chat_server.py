"""A small OpenAI-compatible server: Hugging Face's own chat template and `generate`, none of the package's code."""

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from PIL import Image
from transformers import AutoTokenizer, InternVLForConditionalGeneration

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def build_app(checkpoint: Path, name: str) -> FastAPI:
    model = InternVLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> dict[str, Any]:
        body = await request.json()
        if body["model"] != name:
            raise HTTPException(404, f"model {body['model']!r} does not exist")
        text, pictures = apply_template(tokenizer, body["messages"])
        tile = "<img>" + "<IMG_CONTEXT>" * model.config.image_seq_length + "</img>"
        ids = tokenizer(text.replace("<IMG_CONTEXT>", tile), return_tensors="pt").input_ids
        with torch.no_grad():
            done = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=prepare(pictures) if pictures else None,
                max_new_tokens=body["max_tokens"],
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        said = done.sequences[0, ids.shape[1] :].tolist()
        content = [describe(tokenizer, i, row[0], body["top_logprobs"]) for i, row in zip(said, done.logits)]
        reply = tokenizer.decode(said, skip_special_tokens=True)
        return {
            "choices": [
                {"message": {"role": "assistant", "content": reply}, "logprobs": {"content": content}}
            ]
        }

    return app


def apply_template(tokenizer: Any, messages: list[dict[str, Any]]) -> tuple[str, list[Image.Image]]:
    """The prompt, and the pictures in the order of their parts."""
    urls = [
        part["image_url"]["url"]
        for message in messages
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB") for url in urls
    ]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True), pictures


def prepare(pictures: list[Image.Image]) -> torch.Tensor:
    arrays = [(np.asarray(picture) / 255 - MEAN) / STD for picture in pictures]
    return torch.tensor(np.stack(arrays).transpose(0, 3, 1, 2), dtype=torch.float32)


def describe(tokenizer: Any, token_id: int, logits: torch.Tensor, count: int) -> dict[str, Any]:
    logprobs = logits.float().log_softmax(-1)
    top = logprobs.topk(count)
    candidates = [
        {"token": tokenizer.decode([i]), "logprob": value}
        for i, value in zip(top.indices.tolist(), top.values.tolist())
    ]
    said = {"token": tokenizer.decode([token_id]), "logprob": float(logprobs[token_id])}
    return said | {"top_logprobs": candidates}


@contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Runs the app on a free port of this machine; gives its base URL."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the test server did not start")
        thread.join(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    thread.join(10)
