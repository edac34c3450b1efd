"""`SwiftEngine`: ms-swift's inference engine, the route that VLAC's own code takes.

Runs the original checkpoint or the native one. ms-swift 4.6 calls the engine `TransformersEngine`; the VLAC
reference pins 3.3, where the same thing is `swift.llm.PtEngine`.
"""

__all__ = ["SwiftEngine"]

import importlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlac_gym.critic.engines.base import EngineReply, EngineRequest
from vlac_gym.critic.engines.chat_completions import TOP_LOGPROBS, read_reply
from vlac_gym.critic.engines.chat_prompts import check_request
from vlac_gym.critic.engines.checkpoint_digest import checkpoint_digest
from vlac_gym.errors import ConfigError, CriticServerError, DependencyNotInstalled, unknown_name
from vlac_gym.frames.codec import square_picture

_KINDS = {"internvl_chat": ("internvl_chat", "internvl2"), "internvl": ("internvl", "internvl_hf")}
"""`model_type` of config.json -> ms-swift's model type and template."""

_DTYPES = ("bfloat16", "float16", "float32")


class SwiftEngine:
    """Answers requests through ms-swift; the model is loaded at the first request.

    ms-swift executes the code that a checkpoint refers to (`auto_map` in its JSON files), as VLAC's original one
    does; such a checkpoint has to be allowed. A converted checkpoint refers to none.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: str | None = None,
        dtype: str | None = None,
        max_batch_size: int = 8,
        allow_remote_code: bool = False,
    ) -> None:
        """Checks the arguments and the checkpoint's configuration; loads nothing.

        Args:
            path: Directory of an original (`internvl_chat`) or native (`internvl`) checkpoint.
            device: `cpu`, `cuda:0`, …; ms-swift's choice by default.
            dtype: `"bfloat16"`, `"float16"` or `"float32"`; by default the checkpoint's own.
            max_batch_size: Requests of one forward pass.
            allow_remote_code: Needed for a checkpoint with code, which ms-swift then executes.

        Raises:
            ConfigError: Not such a checkpoint, or an argument out of range.
            DependencyNotInstalled: ms-swift is missing.
        """
        if importlib.util.find_spec("swift") is None:
            raise DependencyNotInstalled('SwiftEngine needs ms-swift. Run: pip install "vlac-gym[swift]"')
        if dtype is not None and dtype not in _DTYPES:
            raise unknown_name("dtype", dtype, _DTYPES)
        if max_batch_size < 1:
            raise ConfigError(f"Expected max_batch_size >= 1, got {max_batch_size}.")
        self._path = Path(path)
        self._model_type, self._image_size = _read_config(self._path)
        if not allow_remote_code:
            _check_runs_no_code(self._path)
        self._weights = checkpoint_digest(self._path)
        self._device = device
        self._dtype = dtype
        self._max_batch_size = max_batch_size
        self._engine: Any = None
        self._is_closed = False

    def generate(self, requests: Sequence[EngineRequest]) -> list[EngineReply]:
        """Answers every request, in order, greedily.

        Raises:
            ConfigError: A malformed request.
            CriticServerError: ms-swift failed; the cause is attached.
            CriticResponseError: A reply without tokens or with log-probabilities that are no numbers.
        """
        for request in requests:
            check_request(request)
        if not requests:
            return []
        engine = self._load()
        replies: dict[int, EngineReply] = {}
        for max_new_tokens in sorted({request.max_new_tokens for request in requests}):
            chosen = [i for i, request in enumerate(requests) if request.max_new_tokens == max_new_tokens]
            # Batch by batch, as ms-swift would: prepared pictures of more would only wait.
            for begin in range(0, len(chosen), self._max_batch_size):
                batch = chosen[begin : begin + self._max_batch_size]
                answers = self._infer(engine, [requests[i] for i in batch], max_new_tokens)
                replies |= {i: read_reply(_as_body(answer)) for i, answer in zip(batch, answers, strict=True)}
        return [replies[i] for i in range(len(requests))]

    def describe(self) -> dict[str, Any]:
        """`name`, `model`, digest of the `weights`, `device` and the checkpoint's format; loads nothing."""
        return {
            "name": "swift",
            "model": str(self._path),
            "weights_digest": self._weights,
            "device": self._device or "auto",
            "dtype": self._dtype or "auto",
            "format": self._model_type,
        }

    def sleep(self) -> None:
        """Moves the weights to the CPU; the next request after `wake` finds them where they were."""
        self._move("cpu")

    def wake(self) -> None:
        """Moves the weights back to the device."""
        if self._device is not None:
            self._move(self._device)

    def close(self) -> None:
        """Drops the model; safe to call twice."""
        self._is_closed = True
        self._engine = None

    def _load(self) -> Any:
        if self._is_closed:
            raise ConfigError("This SwiftEngine is closed. Build another one.")
        if self._engine is None:
            torch, infer_engine = _import("torch"), _import("swift.infer_engine")
            model_type, template_type = _KINDS[self._model_type]
            self._engine = infer_engine.TransformersEngine(
                str(self._path),
                model_type=model_type,
                template_type=template_type,
                torch_dtype=getattr(torch, self._dtype) if self._dtype else None,
                device_map=self._device,
                max_batch_size=self._max_batch_size,
            )
            self._device = self._device or str(self._engine.model.device)
            # ms-swift assumes 448 for the original format; the checkpoint's own size decides.
            self._engine.template.input_size = self._image_size
        return self._engine

    def _infer(self, engine: Any, requests: Sequence[EngineRequest], max_new_tokens: int) -> list[Any]:
        protocol = _import("swift.infer_engine.protocol")
        config = protocol.RequestConfig(
            max_tokens=max_new_tokens, temperature=0.0, logprobs=True, top_logprobs=TOP_LOGPROBS
        )
        inputs = [
            protocol.InferRequest(
                messages=_messages(request),
                images=[square_picture(frame, self._image_size) for frame in request.frames],
            )
            for request in requests
        ]
        try:
            answers: list[Any] = engine.infer(inputs, config, use_tqdm=False)
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AssertionError) as e:
            raise CriticServerError(
                f"ms-swift failed on {len(requests)} requests: {type(e).__name__}: {e}."
            ) from e
        return answers

    def _move(self, device: str) -> None:
        if self._engine is None:
            return
        self._engine.model.to(device)
        torch = _import("torch")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _messages(request: EngineRequest) -> list[dict[str, str]]:
    """ms-swift puts frames without marks before the text by itself, as the reference relies on.

    An empty system message means none; without the message ms-swift would put in InternVL's own.
    """
    return [{"role": "system", "content": request.system}, {"role": "user", "content": request.prompt}]


def _as_body(answer: Any) -> dict[str, Any]:
    """ms-swift answers with the OpenAI structure in dataclasses."""
    choice = answer.choices[0]
    return {"choices": [{"message": {"content": choice.message.content}, "logprobs": choice.logprobs}]}


def _read_config(path: Path) -> tuple[str, int]:
    """The checkpoint's `model_type` and the side of its pictures in pixels."""
    file = path / "config.json"
    if not file.is_file():
        raise ConfigError(f"Expected a checkpoint directory with config.json, got {str(path)!r}.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        model_type = config["model_type"]
        if model_type not in _KINDS:
            raise ConfigError(f"Expected model_type internvl_chat or internvl in {file}, got {model_type!r}.")
        side = config.get("force_image_size") or config["vision_config"]["image_size"]
        return model_type, int(side[0] if isinstance(side, list) else side)
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, IndexError) as e:
        raise ConfigError(f"Expected the configuration of an InternVL model in {file}: {e!r}.") from e


def _check_runs_no_code(path: Path) -> None:
    for file in sorted(path.glob("*.json")):
        if file.name.endswith("config.json") and '"auto_map"' in file.read_text(encoding="utf-8"):
            raise ConfigError(
                f"{file} refers to Python code, which ms-swift would execute. Convert the checkpoint "
                "(vlac-gym convert --from PATH --to PATH), or pass allow_remote_code=True."
            )


def _import(name: str) -> Any:
    return importlib.import_module(name)
