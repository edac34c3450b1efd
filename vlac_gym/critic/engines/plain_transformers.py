"""The yardstick: one request at a time through transformers' own `generate`: `PlainTransformersEngine`.

Nothing is cached, batched or fused; every frame is encoded for every request. The fast engine is tested and
measured against it. Not meant for training.
"""

__all__ = ["PlainTransformersEngine"]

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlac_gym.critic.engines.answering import TokenPicker, build_reply
from vlac_gym.critic.engines.base import EngineReply, EngineRequest
from vlac_gym.critic.engines.checkpoint_digest import checkpoint_digest
from vlac_gym.critic.engines.checkpoint_files import inspect_checkpoint
from vlac_gym.critic.engines.frame_preparation import FramePreparer, ImagePreparation
from vlac_gym.critic.engines.transformers_loading import (
    image_geometry,
    load_model,
    load_prompt_encoder,
    pick_device,
    pick_dtype,
)
from vlac_gym.extras import needs

with needs("The transformers engine", "vlac"):
    import torch


class PlainTransformersEngine:
    """Same checkpoints, same requests, same replies as `TransformersEngine`, without its speed.

    Args:
        path: Checkpoint directory.
        device: As in `TransformersEngine`.
        dtype: As in `TransformersEngine`.
        image_preparation: As in `TransformersEngine`.

    Raises:
        ConfigError: The checkpoint does not fit.
    """

    def __init__(
        self,
        path: str | Path,
        device: str | None = None,
        dtype: str | None = None,
        image_preparation: ImagePreparation = "pillow",
    ) -> None:
        facts = inspect_checkpoint(path)
        self._path = str(path)
        self._weights = checkpoint_digest(path)
        self._device = pick_device(device)
        torch_dtype = pick_dtype(dtype, self._device)
        self.model: Any = load_model(facts, torch_dtype).to(self._device).eval()
        self._prompts = load_prompt_encoder(facts)
        self._picker = TokenPicker(self._prompts.reply_tokens, self._device)
        self._preparer = FramePreparer(
            image_geometry(self.model.config)[0],
            facts.image_mean,
            facts.image_std,
            mode=image_preparation,
            device=self._device,
            dtype=torch_dtype,
        )

    def generate(self, requests: Sequence[EngineRequest]) -> list[EngineReply]:
        """Answers every request, in order, greedily."""
        with torch.inference_mode():
            return [self._generate_one(request) for request in requests]

    def describe(self) -> dict[str, Any]:
        """Name, checkpoint and its digest, device."""
        return {
            "name": "plain_transformers",
            "model": self._path,
            "weights_digest": self._weights,
            "device": str(self._device),
        }

    def sleep(self) -> None:
        """Does nothing."""

    def wake(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Ends the threads."""
        self._preparer.close()

    def _generate_one(self, request: EngineRequest) -> EngineReply:
        prompt = self._prompts.encode(request)
        ids = torch.from_numpy(prompt.ids)[None].to(self._device)
        pictures = {}
        if request.frames:
            pictures["pixel_values"] = self._preparer.finish(self._preparer.begin(request.frames))
        steps = {"number": 1, "signed_number": 2}.get(request.answer, request.max_new_tokens)

        def allowed(_: int, so_far: torch.Tensor) -> list[int]:
            return self._picker.allowed_tokens(request.answer, len(so_far) - ids.shape[1])

        generated = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **pictures,
            max_new_tokens=min(steps, request.max_new_tokens),
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            eos_token_id=sorted(self._prompts.reply_tokens.stops),
            prefix_allowed_tokens_fn=None if request.answer == "text" else allowed,
        )
        picks = [
            self._picker.pick(logits.float(), request.answer, step)
            for step, logits in enumerate(generated.logits)
        ]
        return build_reply([pick.send().read() for pick in picks], 0, request.answer, self._prompts)
