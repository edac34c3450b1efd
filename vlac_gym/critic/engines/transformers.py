"""The transformers engine: a native InternVL checkpoint, run in this process: `TransformersEngine`.

What makes it fast: one forward answers a done check; frames are encoded once and their features kept; the
prompt's shared beginning is computed once per batch; batches hold requests of similar length; frames are
prepared on the device, ahead of the model.
"""

__all__ = ["TransformersEngine"]

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from vlac_gym.critic.engines.base import AnswerKind, EngineReply, EngineRequest
from vlac_gym.critic.engines.checkpoint_files import inspect_checkpoint
from vlac_gym.errors import (
    ConfigError,
    CriticOverloadedError,
    CriticServerError,
    unknown_name,
)
from vlac_gym.extras import needs
from vlac_gym.frames.checks import frame_key
from vlac_gym.types import Frame

with needs("The transformers engine", "vlac"):
    import torch
    import transformers as _transformers  # noqa: F401  (checked here, so that the message names the extra)
    from PIL import Image as _image  # noqa: F401

from vlac_gym.critic.engines.answering import SentPick, TokenPicker, build_reply
from vlac_gym.critic.engines.attention import without_cudnn_attention
from vlac_gym.critic.engines.batch_runner import BatchRunner
from vlac_gym.critic.engines.cuda_graphs import PromptShape
from vlac_gym.critic.engines.engine_reports import EngineStatistics, WarmUpReport
from vlac_gym.critic.engines.frame_features import FrameFeatures, StagedFrames
from vlac_gym.critic.engines.frame_preparation import FramePreparer, ImagePreparation
from vlac_gym.critic.engines.memory_plan import RUNTIME_BYTES, plan_memory
from vlac_gym.critic.engines.recorded_forwards import RecordedForwards
from vlac_gym.critic.engines.request_plan import Batch, Item, most_steps, plan_batches
from vlac_gym.critic.engines.transformers_loading import (
    bytes_per_token,
    load_checkpoint,
    pick_device,
    pick_dtype,
)

_GPU_BATCH_TOKENS, _CPU_BATCH_TOKENS = 32768, 4096
_GPU_CACHE_MB, _CPU_CACHE_MB = 4096, 512
_PREFIX_CACHE_BYTES = 1 << 30
_GRAPHED_SIZES = (1, 2, 4, 8)
_SMALL_MODEL_PARAMETERS = 100_000_000
"""Of a model with no more, even large batches take a GPU less time than their launches take the host."""
_SMALL_MODEL_SIZES = (*_GRAPHED_SIZES, 16, 32, 64)
_PLANNED_TOKENS = 24_000
"""So large a batch of a large model, as bulk work has them, gains more by cuDNN's attention than a plan costs."""
_DIGEST_THREADS = min(16, os.cpu_count() or 1)


class TransformersEngine:
    """Runs a native Hugging Face InternVL checkpoint.

    Frames are told apart by content, so a frame judged before costs no vision forward as long as its features
    are in the cache; a `DeviceFrame` stays where it is, and is told apart by object. In float32 results do not depend
    on what else is in a batch, to rounding (1e-5); bfloat16 kernels round differently for other batch sizes (about
    1e-2). Calls from several threads run one by one.

    Args:
        path: Checkpoint directory: config.json, safetensors, tokenizer.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, …; by default the first GPU if there is one.
        dtype: `"bfloat16"`, `"float16"` or `"float32"`; by default bfloat16 on GPUs, float32 on the CPU.
        max_gpu_memory_gb: Bound of this process's memory on the GPU in 10^9 bytes, enforced by torch's
            allocator; batches and caches shrink to fit. None for no bound.
        image_preparation: `"device"` resizes frames on the device, within 1/255 of Pillow's LANCZOS;
            `"pillow"` uses Pillow, exactly.
        vision_cache_mb: Bound of kept picture features in 2^20 bytes (VLAC-2B: 1 MB a frame in bfloat16).
        max_batch_tokens: Most tokens per forward.

    Raises:
        ConfigError: An argument or the checkpoint does not fit; nothing was loaded where that can be told.
        DependencyNotInstalled: torch, transformers or Pillow is missing.
    """

    takes_device_frames = True

    def __init__(
        self,
        path: str | Path,
        device: str | None = None,
        dtype: str | None = None,
        max_gpu_memory_gb: float | None = None,
        image_preparation: ImagePreparation = "device",
        vision_cache_mb: int | None = None,
        max_batch_tokens: int | None = None,
    ) -> None:
        _check_options(image_preparation, vision_cache_mb, max_batch_tokens, max_gpu_memory_gb)
        self._facts = inspect_checkpoint(path)
        self._device = pick_device(device)
        self._dtype = pick_dtype(dtype, self._device)
        self._is_small = self._facts.num_parameters <= _SMALL_MODEL_PARAMETERS
        on_gpu = self._device.type == "cuda"
        if max_gpu_memory_gb is not None and not on_gpu:
            raise ConfigError(
                f"max_gpu_memory_gb bounds a GPU, but the device is {str(self._device)!r}. Leave it out."
            )
        default_cache_mb = _GPU_CACHE_MB if on_gpu else _CPU_CACHE_MB
        self.memory_plan = plan_memory(
            weights=self._facts.num_parameters * self._dtype.itemsize,
            bytes_per_token=bytes_per_token(self._facts, self._dtype.itemsize),
            vision_cache=(default_cache_mb if vision_cache_mb is None else vision_cache_mb) << 20,
            prefix_cache=_PREFIX_CACHE_BYTES,
            max_batch_tokens=max_batch_tokens or (_GPU_BATCH_TOKENS if on_gpu else _CPU_BATCH_TOKENS),
            max_gpu_memory_gb=max_gpu_memory_gb,
        )
        if max_gpu_memory_gb is not None:
            _bound_allocator(self._device, max_gpu_memory_gb)
        self._build(image_preparation)
        self._requests = 0
        self._is_asleep = self._is_closed = False
        self._is_compiled = False
        self._warm_up_call: tuple[tuple[EngineRequest, ...], tuple[int, ...]] | None = None
        self._lock = threading.Lock()
        self._digest_threads = ThreadPoolExecutor(_DIGEST_THREADS, thread_name_prefix="digests")

    def generate(self, requests: Sequence[EngineRequest]) -> list[EngineReply]:
        """Answers every request, in order, greedily and deterministically.

        Raises:
            ConfigError: A request is malformed; none was run.
            ConfigError: The engine is closed.
            CriticOverloadedError: The engine is asleep.
            CriticServerError: The device ran out of memory; caches were dropped.
        """
        with self._lock, torch.inference_mode():
            self._check_open()
            if self._is_asleep:
                raise CriticOverloadedError("The engine is asleep. Call wake() first.")
            items = self._encode(requests)
            batches = plan_batches(items, self.memory_plan.max_batch_tokens, self._runner.prefixes)
            replies: dict[int, EngineReply] = {}
            try:
                running: list[tuple[Batch, list[SentPick]]] = []
                for batch, staged in self._staged(batches):
                    running.append((batch, self._answer(batch, staged)))
                    if len(running) > 1:  # the device works on the next batch while the host reads this one
                        replies |= self._read(*running.pop(0))
                for batch, picks in running:
                    replies |= self._read(batch, picks)
            except torch.OutOfMemoryError as e:
                self._forget()
                raise CriticServerError(
                    f"Out of memory on {self._device} with batches of {self.memory_plan.max_batch_tokens} "
                    "tokens. Lower max_batch_tokens or vision_cache_mb."
                ) from e
            self._requests += len(items)
            return [replies[i] for i in range(len(items))]

    def warm_up(
        self, examples: Sequence[EngineRequest], batch_sizes: Sequence[int] | None = None
    ) -> WarmUpReport:
        """Compiles kernels, and records the forwards of small batches of requests as long as the examples.

        Optional: without it all works, slower. On the CPU it only runs the examples. `wake` repeats it.

        Args:
            examples: Typical requests, e.g. a done check and a pair of the longest and of the shortest task.
            batch_sizes: Batches of up to so many frames, and of done checks or pairs if there is an example of one, are
                replayed as one CUDA graph. By default up to 64 of a model with at most 100 million parameters; of a
                larger one up to 8, and no pairs: those come in long lists, which keep a GPU busy by themselves.

        Returns:
            How long it took and what it made.

        Raises:
            CriticServerError: The device ran out of memory.
        """
        begin = time.perf_counter()
        if batch_sizes is None:
            batch_sizes = _SMALL_MODEL_SIZES if self._is_small else _GRAPHED_SIZES
        self.generate(examples)
        with self._lock, torch.inference_mode(), without_cudnn_attention(self._device):
            if self._device.type == "cuda":
                self._compile()
                self._record(examples, sorted(batch_sizes))
            self._forget()
            self._warm_up_call = (tuple(examples), tuple(batch_sizes))
        self.generate([*examples, *examples])
        recorded = self._device.type == "cuda"
        return WarmUpReport(time.perf_counter() - begin, recorded, tuple(batch_sizes) if recorded else ())

    def statistics(self) -> EngineStatistics:
        """What the engine has done so far."""
        on_gpu = self._device.type == "cuda"
        return EngineStatistics(
            requests=self._requests,
            frames_encoded=self._features.frames_encoded,
            frames_from_cache=self._features.frames_from_cache,
            prefixes_computed=self._runner.prefixes_computed,
            prefixes_from_cache=self._runner.prefixes_from_cache,
            prompt_tokens=self._runner.prompt_tokens,
            padding_tokens=self._runner.padding_tokens,
            peak_memory=torch.cuda.max_memory_allocated(self._device) if on_gpu else 0,
        )

    def describe(self) -> dict[str, Any]:
        """Name, checkpoint and its digest, device, dtype, memory plan."""
        return {
            "name": "transformers",
            "model": str(self._facts.path),
            "weights_digest": self._parts.digest,
            "device": str(self._device),
            "dtype": str(self._dtype).removeprefix("torch."),
            "image_size": self._parts.image_size,
            "memory_plan": asdict(self.memory_plan),
        }

    def forget(self) -> None:
        """Drops kept picture features and prefixes; nothing else changes."""
        with self._lock:
            self._forget()

    def sleep(self) -> None:
        """Moves the weights to the host and drops the caches, until `wake`; what is there already stays."""
        with self._lock:
            self._is_asleep = True
            self._forget()
            self._recorded.forget()
            self._move(torch.device("cpu"))
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def wake(self) -> None:
        """Moves the weights back, and repeats the warm-up; asleep still if that fails.

        Raises:
            CriticServerError: The device ran out of memory in the warm-up.
            RuntimeError: PyTorch's, where it has no room for the weights; another `wake` goes on where this one ended.
        """
        with self._lock:
            self._check_open()
            if not self._is_asleep:
                return
            self._move(self._device)
            self._is_asleep = False
        if self._warm_up_call is not None:
            try:
                self.warm_up(*self._warm_up_call)
            except CriticServerError:
                self.sleep()
                raise

    def close(self) -> None:
        """Sleeps for good: frees device memory and ends threads."""
        self.sleep()
        self._is_closed = True
        self._preparer.close()
        self._digest_threads.shutdown(wait=True)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ConfigError("This TransformersEngine is closed. Build another one.")

    def _build(self, image_preparation: ImagePreparation) -> None:
        facts, plan = self._facts, self.memory_plan
        self._parts = load_checkpoint(facts, self._device, self._dtype)
        self._preparer = FramePreparer(
            self._parts.image_size,
            facts.image_mean,
            facts.image_std,
            mode=image_preparation,
            device=self._device,
            dtype=self._dtype,
        )
        self._features = FrameFeatures(
            self._encode_pictures,
            self._preparer,
            max_bytes=plan.vision_cache,
            batch_size=max(1, plan.max_batch_tokens // self._parts.patches),
        )
        reply_tokens = self._parts.prompts.reply_tokens
        picker = TokenPicker(reply_tokens, self._device)
        self._recorded = RecordedForwards(self._parts, picker, self._device, self._dtype)
        self._runner = BatchRunner(
            self._parts.text,
            picker,
            device=self._device,
            prefix_cache_bytes=plan.prefix_cache,
            stops=torch.tensor(sorted(reply_tokens.stops), device=self._device),
            recorded=self._recorded,
        )

    def _encode(self, requests: Sequence[EngineRequest]) -> list[Item]:
        prompts = [self._parts.prompts.encode(request) for request in requests]
        frames = {id(frame): frame for request in requests for frame in request.frames}
        hashing = {key: self._digest_threads.submit(frame_key, frame) for key, frame in frames.items()}
        return [
            Item(i, request, prompt, tuple(hashing[id(frame)] for frame in request.frames))
            for i, (request, prompt) in enumerate(zip(requests, prompts))
        ]

    def _staged(self, batches: Sequence[Batch]) -> Iterator[tuple[Batch, list[StagedFrames]]]:
        """Batches with their frames on the way; the next batch's are prepared while one runs."""
        coming: set[bytes] = set()
        ahead: list[tuple[Batch, list[StagedFrames]]] = []
        for batch in batches:
            ahead.append((batch, self._features.stage(_frames(batch), coming)))
            if len(ahead) > 1:
                yield ahead.pop(0)
        yield from ahead

    def _answer(self, batch: Batch, staged: list[StagedFrames]) -> list[SentPick]:
        features = self._features.collect(_frames(batch), staged)
        with self._attention(sum(len(item.prompt.ids) - batch.prefix_length for item in batch.items)):
            picks = self._runner.run(batch, features)
        return [pick.send() for pick in picks]

    def _encode_pictures(self, pixels: torch.Tensor) -> torch.Tensor:
        with self._attention(len(pixels) * self._parts.patches):
            return self._recorded.encode(pixels)

    def _attention(self, num_tokens: int) -> AbstractContextManager[None]:
        """A block without cuDNN's attention, unless a batch of so many tokens gains more by it than it costs."""
        is_planned = num_tokens >= _PLANNED_TOKENS and not self._is_small
        return nullcontext() if is_planned else without_cudnn_attention(self._device)

    def _compile(self) -> None:
        if not self._is_compiled:
            self._parts.vision.compile_layers()
            self._parts.text.compile_layers()
            self._is_compiled = True

    def _record(self, examples: Sequence[EngineRequest], batch_sizes: Sequence[int]) -> None:
        kinds: tuple[AnswerKind, ...] = ("number", "signed_number") if self._is_small else ("number",)
        prompts = [
            PromptShape(request.answer, most_steps(request), len(self._parts.prompts.encode(request).ids))
            for request in examples
            # a longer shared beginning is computed once for all rather than in every row
            if request.answer in kinds and 2 * request.shared_frames <= len(request.frames)
        ]
        try:
            self._recorded.record(prompts, batch_sizes, self.memory_plan.max_batch_tokens)
        except torch.OutOfMemoryError as e:
            raise CriticServerError(
                f"Out of memory on {self._device} while forwards of up to {max(batch_sizes)} requests were recorded. "
                "Lower batch_sizes or max_batch_tokens, or leave out the warm-up."
            ) from e

    def _read(self, batch: Batch, picks: list[SentPick]) -> dict[int, EngineReply]:
        """Replies by request index; waits for the device."""
        read = [pick.read() for pick in picks]
        prompts = self._parts.prompts
        return {
            item.index: build_reply(read, row, batch.answer, prompts) for row, item in enumerate(batch.items)
        }

    def _forget(self) -> None:
        self._features.cache.clear()
        self._runner.forget()

    def _move(self, device: torch.device) -> None:
        self._parts.vision.to(device)
        self._parts.text.to(device)


def _frames(batch: Batch) -> dict[bytes, Frame]:
    return {digest: frame for item in batch.items for digest, frame in zip(item.digests, item.request.frames)}


def _bound_allocator(device: torch.device, max_gpu_memory_gb: float) -> None:
    """Lets torch's allocator have the bound less what the process needs beside it."""
    total = torch.cuda.get_device_properties(device).total_memory
    fraction = (max_gpu_memory_gb * 1e9 - RUNTIME_BYTES) / total
    torch.cuda.set_per_process_memory_fraction(min(1.0, fraction), device)


def _check_options(
    image_preparation: str,
    vision_cache_mb: int | None,
    max_batch_tokens: int | None,
    max_gpu_memory_gb: float | None,
) -> None:
    modes = get_args(ImagePreparation)
    if image_preparation not in modes:
        raise unknown_name("image preparation", image_preparation, modes)
    if vision_cache_mb is not None and vision_cache_mb < 0:
        raise ConfigError(f"Expected vision_cache_mb >= 0, got {vision_cache_mb}.")
    if max_batch_tokens is not None and max_batch_tokens < 1:
        raise ConfigError(f"Expected max_batch_tokens >= 1, got {max_batch_tokens}.")
    if max_gpu_memory_gb is not None and not max_gpu_memory_gb > 0:
        raise ConfigError(f"Expected max_gpu_memory_gb > 0, got {max_gpu_memory_gb}.")
