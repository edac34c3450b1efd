"""One episode of a text policy, without verl: `DialoguePlan`, `PolicySettings`, `play_episode`, `reward_extra_info`."""

__all__ = [
    "DialoguePlan",
    "DialogueResult",
    "PolicySettings",
    "parse_policy",
    "play_episode",
    "reward_extra_info",
    "user_text",
]

import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from verl_env_adapter.common.env_report import EnvReport
from verl_env_adapter.common.settings import AdapterSettings, Phase
from verl_env_adapter.verl.action_text import ActionTokenizer
from verl_env_adapter.verl.async_envs import AsyncEnv
from vlac_gym.checks import check_choice
from vlac_gym.errors import AdapterContractError, ConfigError, unknown_name
from vlac_gym.frames.convention import ImageConvention
from vlac_gym.metrics.critic_counters import CRITIC_FAILOVERS, CRITIC_RETRIES
from vlac_gym.types import Mode

_MODES = ("train", "eval")

DEFAULT_PROMPT = "{instructions}\nTask: {task}"


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """How the policy is asked.

    Attributes:
        action_tokenizer: `integers`, or ``module:Class`` of an `ActionTokenizer`.
        action_options: Its keyword options; `chunk`, `low` and `high` default to the env's.
        prompt: Text of each question; `{instructions}`, `{task}` and `{state}` are replaced.
        images: Observation keys sent as pictures, in order; None: every camera; empty: none.
        image_convention: How the policy wants pictures.
        layout: `rows`, one row per action chunk (V1 trainer), `conversation`, one row per episode with every
            chunk a turn (the V0 trainer takes only this), or `auto`: `rows` where the trainer takes them.
    """

    action_tokenizer: str = "integers"
    action_options: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = DEFAULT_PROMPT
    images: tuple[str, ...] | None = None
    image_convention: ImageConvention = ImageConvention.UPRIGHT
    layout: Literal["auto", "rows", "conversation"] = "auto"


def parse_policy(block: Mapping[str, Any]) -> PolicySettings:
    """Reads the policy's block.

    Raises:
        ConfigError: An unknown key (with the nearest known one), or a value that does not fit.
    """
    known = {item.name for item in dataclasses.fields(PolicySettings)}
    values = dict(block)
    for name in values:
        if name not in known:
            raise unknown_name("key in policy", str(name), known)
    if values.get("images") is not None:
        values["images"] = tuple(values["images"])
    conventions = [item.value for item in ImageConvention]
    convention = str(values.get("image_convention", ImageConvention.UPRIGHT))
    check_choice("policy.image_convention", convention, conventions)
    values["image_convention"] = ImageConvention(convention)
    check_choice("policy.layout", values.get("layout", "auto"), ("auto", "rows", "conversation"))
    policy = PolicySettings(**values)
    try:
        policy.prompt.format(instructions="", task="", state="")
    except (KeyError, IndexError, ValueError) as e:
        raise ConfigError(
            f"Expected policy.prompt with {{instructions}}, {{task}} and {{state}} only, got {policy.prompt!r}: {e!r}."
        ) from e
    return policy


@dataclass(frozen=True, kw_only=True)
class DialoguePlan:
    """Which episode a dataset row asks for.

    Attributes:
        mode: The wrapper's mode.
        task_id: LIBERO's task, else None.
        init_state_id: LIBERO's initial state, else None.
        seed: The env's seed, else None.
    """

    mode: Mode
    task_id: int | None = None
    init_state_id: int | None = None
    seed: int | None = None

    @classmethod
    def from_row(
        cls, extra_info: Mapping[str, Any] | None, phase: Phase | None, settings: AdapterSettings
    ) -> "DialoguePlan":
        """Reads a row's `extra_info`; the trainer's phase and the row's `mode` must agree.

        Args:
            extra_info: `mode` (`train` or `eval`), `task_id`, `init_state_id`, `seed`.
            phase: What the trainer itself is doing, None if it does not say.
            settings: The trainer's block.

        Raises:
            AdapterContractError: Row and phase contradict each other, neither says the mode, or the row does not
                fix where the episode starts, so that the samples of a group would start differently.
        """
        row = dict(extra_info or {})
        _check_suite(row, settings)
        starts = {name: _optional_int(row, name) for name in ("task_id", "init_state_id", "seed")}
        if starts["init_state_id"] is None and starts["seed"] is None:
            raise AdapterContractError(
                "The row's extra_info fixes no start: expected init_state_id or seed, which all samples of a "
                f"group share; got the keys {sorted(row)}."
            )
        return cls(mode=settings.mode_in(_agreed_phase(row.get("mode"), phase)), **starts)


def _agreed_phase(declared: Any, phase: Phase | None) -> Phase:
    """The phase that the row's mode and the trainer agree on."""
    if declared is None:
        if phase is None:
            raise AdapterContractError(
                "Neither the row's extra_info.mode nor the trainer says whether this is training or validation. "
                "Build the data with `python -m verl_env_adapter.verl.dataset`, which writes the column."
            )
        return phase
    if declared not in _MODES:
        raise unknown_name("extra_info.mode", str(declared), _MODES)
    meant: Phase = "validate" if declared == "eval" else "train"
    if phase not in (None, meant):
        raise AdapterContractError(
            f"The row says mode {declared!r}, but the trainer is in its {phase} phase. "
            "Give data.train_files rows of mode train, and data.val_files rows of mode eval."
        )
    return meant


def _check_suite(row: Mapping[str, Any], settings: AdapterSettings) -> None:
    suite = row.get("task_suite")
    if settings.env.is_libero and suite not in (None, settings.env.suite):
        raise AdapterContractError(
            f"The row is of task suite {suite!r}, but the settings' env.suite is {settings.env.suite!r}. "
            "Build the data for the suite that is trained."
        )


@dataclass(frozen=True)
class DialogueResult:
    """What an episode came to.

    Attributes:
        report: The env's last word.
        plan: What was asked for.
        chunks: Action chunks executed.
        malformed_chunks: Replies that broke the format.
        is_cut: The policy ran out of tokens before the env ended the episode; nothing was paid for its end.
        env_s: Seconds spent waiting for the env and the critic.
    """

    report: EnvReport
    plan: DialoguePlan
    chunks: int
    malformed_chunks: int
    is_cut: bool
    env_s: float

    @property
    def reward(self) -> float:
        """Sum of what the wrapper paid."""
        return self.report.episode_return


async def play_episode(
    env: AsyncEnv,
    plan: DialoguePlan,
    ask: Callable[[EnvReport], Awaitable[str | None]],
    tokenizer: ActionTokenizer,
) -> DialogueResult:
    """Plays one episode to its end, chunk by chunk.

    Args:
        env: Where.
        plan: Which.
        ask: The policy: its reply to what the env says, or None if it has no room for another.
        tokenizer: Turns replies into actions.

    Raises:
        CriticError: With ``on_error: raise``.
        CircuitBreakerError: More was lost to the critic than ``on_error`` allows.
        SimulatorError: The env failed.
    """
    start = time.monotonic()
    report = await env.reset(
        mode=plan.mode, seed=plan.seed, task_id=plan.task_id, init_state_id=plan.init_state_id
    )
    env_s = time.monotonic() - start
    chunks = malformed = 0
    while not report.is_over:
        reply = await ask(report)
        if reply is None:
            break
        decoded = tokenizer.decode(reply)
        start = time.monotonic()
        report = await env.step_chunk(decoded.actions)
        env_s += time.monotonic() - start
        chunks += 1
        malformed += decoded.is_malformed
    return DialogueResult(report, plan, chunks, malformed, not report.is_over, env_s)


def reward_extra_info(result: DialogueResult) -> dict[str, float]:
    """An episode's scalars for verl's `reward_extra_info`: the same keys for every sample, all floats.

    `acc` is verl's core validation metric: the simulator's success in eval mode, the critic's done in train mode.
    `sim_success` is 0.0 for an env that reports none; `critic_value` is the value paid at the step limit and 0.0
    where the critic was not asked for it. `critic_failed` is 1.0 where the critic failed: no token of the episode is
    trained. `critic_retries` and `critic_failovers` are the counts of this process so far.
    """
    report = result.report
    sim_success = float(bool(report.sim_success))
    is_eval = result.plan.mode == "eval"
    return {
        "acc": sim_success if is_eval else float(report.critic_done),
        "env_reward": result.reward,
        "sim_success": sim_success,
        "critic_done": float(report.critic_done),
        "critic_failed": float(report.critic_failed),
        "critic_retries": float(report.critic_counters.get(CRITIC_RETRIES, 0)),
        "critic_failovers": float(report.critic_counters.get(CRITIC_FAILOVERS, 0)),
        "critic_value": float(report.value or 0.0),
        "terminated": float(report.terminated),
        "truncated": float(report.truncated),
        "env_steps": float(report.episode_steps),
        "action_chunks": float(result.chunks),
        "malformed_chunks": float(result.malformed_chunks),
        "cut_by_length": float(result.is_cut),
        "is_eval": float(is_eval),
    }


def user_text(policy: PolicySettings, tokenizer: ActionTokenizer, report: EnvReport) -> str:
    """The question's text for what the env says."""
    state = ""
    if "{state}" in policy.prompt:
        state = " ".join(f"{number:.3f}" for number in report.observation["state"])
    return policy.prompt.format(instructions=tokenizer.instructions(), task=report.task, state=state)


def _optional_int(row: Mapping[str, Any], name: str) -> int | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or int(value) != value:
        raise AdapterContractError(f"Expected extra_info.{name} as a whole number, got {value!r}.")
    return int(value)
