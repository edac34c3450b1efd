"""What a policy is shown and says in one episode, as verl's token rows: `Dialogue`, `Row`."""

__all__ = ["Dialogue", "Row"]

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from verl_env_adapter.common.env_report import EnvReport
from verl_env_adapter.verl.action_text import ActionTokenizer
from verl_env_adapter.verl.episode import PolicySettings, user_text
from vlac_gym.critic.base import check_frame
from vlac_gym.errors import AdapterContractError, ConfigError
from vlac_gym.extras import needs
from vlac_gym.frames.convention import convert_image
from vlac_gym.types import Frame

with needs("The verl adapter", "verl"):
    from PIL import Image


@dataclass
class Row:
    """One training row.

    Attributes:
        prompt_ids: Tokens before the first reply.
        response_ids: Replies, and in a conversation the questions between them.
        response_mask: 1 for the policy's tokens, 0 for others; as long as `response_ids`.
        log_probs: Of the response, 0.0 where the mask is 0; None if the server gives none.
        images: Every picture whose placeholder is in the tokens, in order.
        num_turns: Messages.
        generate_s: Seconds spent waiting for the policy.
        num_preempted: verl's count, -1 if unknown.
        routed_experts: verl's, for router replay.
        extra_fields: verl's, e.g. the weights' versions.
    """

    prompt_ids: list[int]
    response_ids: list[int] = field(default_factory=list)
    response_mask: list[int] = field(default_factory=list)
    log_probs: list[float] | None = None
    images: list[Image.Image] = field(default_factory=list)
    num_turns: int = 0
    generate_s: float = 0.0
    num_preempted: int = -1
    routed_experts: Any = None
    extra_fields: dict[str, Any] = field(default_factory=dict)


class Dialogue:
    """Asks the policy, chunk after chunk.

    Args:
        loop: verl's agent loop, for its tokens and its policy server.
        policy: How the policy is asked.
        actions: The format of its replies.
        sampling_params: For the server.
        request_id: Keeps an episode on one server.
        priority: verl's.
        is_conversation: One growing conversation instead of a fresh question per chunk.
    """

    def __init__(
        self,
        loop: Any,
        *,
        policy: PolicySettings,
        actions: ActionTokenizer,
        sampling_params: dict[str, Any],
        request_id: str,
        priority: int,
        is_conversation: bool,
    ) -> None:
        self._loop = loop
        self._policy = policy
        self._actions = actions
        self._sampling_params = sampling_params
        self._request_id = request_id
        self._priority = priority
        self._is_conversation = is_conversation
        self._messages: list[dict[str, Any]] = []
        self._rows: list[Row] = []

    def rows(self) -> list[Row]:
        """One per reply, or one for all."""
        return list(self._rows)

    async def ask(self, report: EnvReport) -> str | None:
        """The policy's reply to what the env says; None if a conversation has no tokens left for one."""
        pictures = [Image.fromarray(frame) for frame in _pictures(report.observation, self._policy)]
        self._loop._assert_mm_supported(bool(pictures))
        message = _message(user_text(self._policy, self._actions, report), pictures)
        if self._is_conversation and self._rows:
            if not await self._go_on(message, pictures):
                return None
        else:
            await self._begin(message, pictures)
        return await self._generate()

    async def _begin(self, message: dict[str, Any], pictures: list[Image.Image]) -> None:
        self._messages = [message]
        prompt_ids = await self._loop.ct_build_initial_tokens(self._messages, images=pictures or None)
        self._rows.append(Row(prompt_ids=list(prompt_ids), images=pictures))

    async def _go_on(self, message: dict[str, Any], pictures: list[Image.Image]) -> bool:
        row = self._rows[-1]
        before = list(self._messages)
        messages = [*before, message]
        merged, mask, log_probs = await self._loop.ct_merge_context_msg(
            before, messages, row.prompt_ids + row.response_ids, row.response_mask, row.log_probs
        )
        if len(mask) >= self._loop.rollout_config.response_length:
            return False
        self._messages = messages
        _take(row, merged.token_ids, mask, log_probs)
        row.images = [*row.images, *pictures]
        return True

    async def _generate(self) -> str:
        row = self._rows[-1]
        start = time.monotonic()
        reply = await self._loop.server_manager.generate(
            request_id=self._request_id,
            prompt_ids=row.prompt_ids + row.response_ids,
            sampling_params=self._sampling_params,
            image_data=row.images or None,
            mm_processor_kwargs=self._loop._get_mm_processor_kwargs(),
            priority=self._priority,
        )
        row.generate_s += time.monotonic() - start
        if not reply.token_ids:
            raise AdapterContractError(
                "The policy server replied without a single token. Is rollout.response_length above 0?"
            )
        has_log_probs = bool(reply.log_probs)
        merged, mask, log_probs = await self._loop.ct_merge_assistant_token(
            row.prompt_ids + row.response_ids,
            reply.token_ids,
            row.response_mask,
            (row.log_probs or []) if has_log_probs else None,
            assistant_logprobs=reply.log_probs if has_log_probs else None,
        )
        _take(row, merged.token_ids, mask, log_probs if has_log_probs else None)
        text: str = self._loop.tokenizer.decode(reply.token_ids, skip_special_tokens=True)
        self._messages = [*self._messages, {"role": "assistant", "content": text}]
        row.num_turns += 2
        row.num_preempted = -1 if reply.num_preempted is None else reply.num_preempted
        row.routed_experts = reply.routed_experts
        first_version = row.extra_fields.get("min_global_steps")
        row.extra_fields = dict(reply.extra_fields)
        if first_version is not None:
            row.extra_fields["min_global_steps"] = first_version
        return text


def _take(row: Row, token_ids: list[int], mask: list[int], log_probs: list[float] | None) -> None:
    split = len(token_ids) - len(mask)
    row.prompt_ids, row.response_ids = list(token_ids[:split]), list(token_ids[split:])
    row.response_mask = list(mask)
    row.log_probs = list(log_probs) if log_probs is not None else None


def _message(text: str, pictures: list[Image.Image]) -> dict[str, Any]:
    if not pictures:
        return {"role": "user", "content": text}
    blocks = [{"type": "image", "image": picture} for picture in pictures]
    return {"role": "user", "content": [*blocks, {"type": "text", "text": text}]}


def _pictures(observation: Any, policy: PolicySettings) -> list[Frame]:
    if isinstance(observation, np.ndarray):
        frames = [observation] if policy.images is None else []
    elif isinstance(observation, Mapping):
        frames = [observation[key] for key in _image_keys(observation, policy)]
    else:
        raise AdapterContractError(
            f"Expected the observation as a picture or a mapping, got {type(observation).__name__}."
        )
    for frame in frames:
        check_frame(frame, "the policy's picture")
    return [convert_image(frame, policy.image_convention) for frame in frames]


def _image_keys(observation: Mapping[str, Any], policy: PolicySettings) -> list[str]:
    if policy.images is None:
        return [key for key, value in observation.items() if np.ndim(value) == 3]
    missing = [key for key in policy.images if key not in observation]
    if missing:
        raise ConfigError(f"Expected policy.images among {sorted(observation)}, got {missing}.")
    return list(policy.images)
