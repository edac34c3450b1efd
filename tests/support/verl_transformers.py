"""An inference engine for verl 0.9.1's agent loops that needs no GPU: transformers in a Ray actor.

`TransformersReplica` is what verl launches and asks, `WeightSender` what its actor sends new weights through. Every
reply is a line in the file that `VLAC_GYM_TEST_REPLIES` names: `prompt_ids`, `token_ids`, `global_steps`.
"""

import json
import os
from pathlib import Path
from typing import Any

import ray
import torch
from transformers import AutoModelForCausalLM
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

SEED = 0


@ray.remote(num_cpus=0)
class TransformersServer:
    """Samples token by token, for one request at a time.

    Args:
        path: The policy's folder; its weights are replaced before the first request.
        response_length: Tokens per reply at most.
    """

    def __init__(self, path: str, response_length: int) -> None:
        torch.manual_seed(SEED)
        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self._response_length = response_length
        self._global_steps: int | None = None

    def load_weights(self, weights: dict[str, torch.Tensor], global_steps: int | None) -> None:
        """All weights of the trainer's step."""
        self._model.load_state_dict(weights)
        self._global_steps = global_steps

    @torch.no_grad()
    def generate(
        self,
        request_id: str,
        *,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        image_data: Any = None,
        video_data: Any = None,
    ) -> TokenOutput:
        """A reply with its log-probabilities under `temperature`; the likeliest token each time where it is 0."""
        assert self._global_steps is not None, "verl sends the actor's weights before it asks"
        assert not image_data
        assert not video_data
        assert (sampling_params["top_p"], sampling_params["top_k"]) == (1.0, -1)
        temperature = sampling_params["temperature"]
        how = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
        prompt = torch.tensor([prompt_ids])
        output = self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=self._response_length,
            top_k=0,
            output_logits=True,
            return_dict_in_generate=True,
            **how,
        )
        token_ids = output.sequences[0, len(prompt_ids) :]
        logits = torch.cat(output.logits) / (temperature or 1.0)
        log_probs = logits.log_softmax(-1).gather(1, token_ids[:, None])[:, 0]
        reply = {"token_ids": token_ids.tolist(), "global_steps": self._global_steps}
        with Path(os.environ["VLAC_GYM_TEST_REPLIES"]).open("a") as file:
            file.write(json.dumps({"prompt_ids": list(prompt_ids), **reply}) + "\n")
        return TokenOutput(
            token_ids=reply["token_ids"],
            log_probs=log_probs.tolist(),
            stop_reason="completed",
            extra_fields={"global_steps": self._global_steps},
        )

    def sleep(self) -> None:
        """Nothing is freed."""

    def wake_up(self) -> None:
        """Nothing was freed."""


class TransformersReplica(RolloutReplica):
    """One `TransformersServer`."""

    async def launch_servers(self) -> None:
        server = TransformersServer.options(name=_server_name(self.replica_rank)).remote(
            self.model_config.path, self.config.response_length
        )
        self.servers = [server]
        self._server_handle = server
        self._server_address = f"transformers:{self.replica_rank}"


class WeightSender(BaseRollout):
    """Lives in the actor's process, one per rank; each rank has a server of its own (no tensor parallelism)."""

    async def resume(self, tags: list[str]) -> None:
        pass

    async def release(self) -> None:
        pass

    async def update_weights(self, weights: Any, *, global_steps: int | None = None, **options: Any) -> None:
        server = ray.get_actor(_server_name(int(os.environ["RANK"])))
        await server.load_weights.remote({name: tensor.cpu() for name, tensor in weights}, global_steps)


def _server_name(rank: int) -> str:
    return f"transformers_server_{rank}"
