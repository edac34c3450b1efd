"""verl's trainer plays episodes with a vision-language policy: `VLACAgentLoop`.

Proven against verl 0.9.1 (PyPI), both its trainers. Translated on the way:

- An agent loop is built anew for every trajectory: the envs live in `shared_envs`, not here, where
  each goes at its own pace.
- The V1 trainer (TransferQueue) takes one row per action chunk and copies the last row's reward to the others; GRPO
  computes each episode's advantage on that row and gives it to all. Other estimators see each row as a sample.
- The V0 trainer takes one row per episode (a list fails in ``output.extra_fields``): the chunks become turns of one
  conversation, whose pictures must all fit in `prompt_length` + `response_length`.
- The train/validate flag is kept from agent loops; `phase` passes it on, and the dataset's column must agree.
- V0 reads the keys of the first sample's `reward_extra_info` from every sample: they are always the same.
- There is no deadline around `run`: env and critic have their own (`placement`, `critic`).
- An exception leaves the episode out of its group in V1, whose other episodes stay, and fails the step in V0.
"""

__all__ = ["VLACAgentLoop"]

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from verl_env_adapter.common.settings import (
    SETTINGS_VARIABLE,
    AdapterSettings,
    parse_settings,
    settings_from_environment,
    to_plain,
)
from verl_env_adapter.verl.action_text import ActionTokenizer, make_action_tokenizer
from verl_env_adapter.verl.async_envs import shared_envs
from verl_env_adapter.verl.dialogue import Dialogue, Row
from verl_env_adapter.verl.episode import (
    DialoguePlan,
    DialogueResult,
    PolicySettings,
    parse_policy,
    play_episode,
    reward_extra_info,
)
from verl_env_adapter.verl.phase import current_phase
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs

with needs("The verl adapter", "verl"):
    from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput


class VLACAgentLoop(AgentLoopBase):  # type: ignore[misc]
    """Plays one episode of any Gymnasium env; the reward is what the wrapper paid.

    Args:
        *args: verl's own.
        settings: The block of `verl_env_adapter.common.settings`, from the agent-loop config file. Without it, the
            trainer config's `vlac_gym`, else the file that `VLAC_GYM_SETTINGS` names.
        policy: The block of `PolicySettings`, from the same file, else the trainer config's `vlac_gym_policy`.
        **kwargs: verl's own.

    Raises:
        ConfigError: No settings, or settings that do not fit.
    """

    def __init__(
        self,
        *args: Any,
        settings: Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._settings = _find_settings(settings, self.config)
        block = policy if policy is not None else self.config.get("vlac_gym_policy")
        self._policy = parse_policy(to_plain(block) if block is not None else {})
        self._layout = _layout(self._policy, self.config)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> Any:
        """Plays the episode that the dataset row asks for.

        Args:
            sampling_params: Passed to the policy server as they are.
            **kwargs: The row's columns; `extra_info` is read.

        Returns:
            A list of `AgentLoopOutput`, one per action chunk, or one for the episode (`layout: conversation`).
        """
        plan = DialoguePlan.from_row(kwargs.get("extra_info"), current_phase(), self._settings)
        actions = self._action_tokenizer()
        dialogue = Dialogue(
            self,
            policy=self._policy,
            actions=actions,
            sampling_params=sampling_params,
            request_id=self._request_id(kwargs),
            priority=int(kwargs.get("priority", 0)),
            is_conversation=self._layout == "conversation",
        )
        async with shared_envs(self._settings).lend(plan.task_id) as env:
            result = await play_episode(env, plan, dialogue.ask, actions)
        outputs = [self._output(row, is_trained=not result.report.critic_failed) for row in dialogue.rows()]
        if not outputs:
            raise ConfigError(
                "The policy had no room for a single reply. Raise actor_rollout_ref.rollout.response_length."
            )
        _close(outputs[-1], result)
        return outputs[0] if self._layout == "conversation" else outputs

    def _action_tokenizer(self) -> ActionTokenizer:
        env = self._settings.env
        options: dict[str, Any] = {}
        if self._policy.action_tokenizer == "integers":
            options["chunk"] = env.chunk
            if env.is_libero:
                options |= {"low": [-1.0] * 7, "high": [1.0] * 7}
        return make_action_tokenizer(
            self._policy.action_tokenizer, options | dict(self._policy.action_options)
        )

    def _request_id(self, row: Mapping[str, Any]) -> str:
        # Under full determinism verl wants an id that is the same in every run.
        if getattr(self.rollout_config, "full_determinism", False):
            return f"det-{int(row.get('priority', 0))}"
        return uuid4().hex

    def _output(self, row: Row, *, is_trained: bool) -> AgentLoopOutput:
        """verl's form of a row; an all-zero `response_mask` takes all its tokens out of the loss."""
        limit = int(self.rollout_config.response_length)
        log_probs = row.log_probs[:limit] if row.log_probs is not None else None
        return AgentLoopOutput(
            prompt_ids=row.prompt_ids,
            response_ids=row.response_ids[:limit],
            response_mask=[int(is_trained and bit) for bit in row.response_mask[:limit]],
            response_logprobs=log_probs,
            routed_experts=row.routed_experts,
            multi_modal_data={"images": row.images} if row.images else {},
            mm_processor_kwargs=self._get_mm_processor_kwargs(),
            num_turns=row.num_turns,
            metrics=AgentLoopMetrics(generate_sequences=row.generate_s, num_preempted=row.num_preempted),
            extra_fields={**row.extra_fields, "turn_scores": [], "tool_rewards": []},
        )


def _close(output: AgentLoopOutput, result: DialogueResult) -> None:
    """Writes the episode's result on its last row, where both trainers look for it."""
    output.reward_score = result.reward
    output.metrics.tool_calls = result.env_s
    output.extra_fields["reward_extra_info"] = reward_extra_info(result)


def _find_settings(block: Mapping[str, Any] | None, config: Any) -> AdapterSettings:
    given = block if block is not None else config.get("vlac_gym")
    if given is not None:
        return parse_settings(given)
    settings = settings_from_environment()
    if settings is None:
        raise ConfigError(
            "vlac-gym's agent loop found no settings. Give them in the agent-loop config file "
            "(actor_rollout_ref.rollout.agent.agent_loop_config_path), as +vlac_gym.… in the trainer's config, or "
            f"as a file named by {SETTINGS_VARIABLE}."
        )
    return settings


def _layout(policy: PolicySettings, config: Any) -> str:
    takes_rows = bool(config.trainer.get("use_v1", False))
    if policy.layout == "auto":
        return "rows" if takes_rows else "conversation"
    if policy.layout == "rows" and not takes_rows:
        raise ConfigError(
            "policy.layout is rows, but verl's V0 trainer takes one row per episode. Set trainer.use_v1=true, or "
            "layout: conversation."
        )
    return policy.layout
