"""What the single and the vector reward wrapper are told: `RewardConfig`, and its keyword form `RewardOptions`."""

__all__ = ["RewardConfig", "RewardOptions", "check_mode", "resolve_rule", "reward_config", "without_mode"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from vlac_gym.checks import check_choice, check_int, is_number
from vlac_gym.critic.base import Critic, check_frames
from vlac_gym.critic.failure_policy import CriticFailurePolicy, OnCriticError, failure_policy
from vlac_gym.critic.knowledge import OnMismatch
from vlac_gym.critic.registry import check_critic
from vlac_gym.errors import ConfigError
from vlac_gym.rule.reward import RuleOptions, TrainingRule, training_rule
from vlac_gym.stepping.frame_source import FrameSource
from vlac_gym.types import Frame, Mode


class RewardOptions(RuleOptions, total=False):
    """Keyword arguments of the reward wrappers, described at `RewardConfig`; the others replace the preset's rule."""

    mode: Mode
    preset: str
    max_episode_steps: int | None
    task: str | None
    frame: FrameSource | None
    on_sim_terminated: Literal["ignore", "truncate"]
    on_critic_error: OnCriticError
    on_critic_mismatch: OnMismatch
    references: Sequence[Frame] | None
    calibration: str | None
    max_buffer_bytes: int
    sim_success_weight: float


@dataclass(frozen=True, kw_only=True, eq=False)
class RewardConfig:
    """Arguments of the reward wrappers, checked.

    Attributes:
        critic: A critic, or a spec for `make_critic`.
        rule: The training rule: the preset's, with the calibration's thresholds, with the options given.
        mode: The first mode.
        max_episode_steps: Step limit, checked by `resolve_rule`, or None for the env's `truncated`.
        task: Task text, or None for ``info["task"]`` at reset.
        frame: Where the frame is; see `FrameSource`.
        on_sim_terminated: What the env's `terminated` does to a training episode.
        on_critic_error: What happens when the critic gives no usable answer.
        on_critic_mismatch: `raise`, or `warn` of a critic that does not know an episode.
        references: 2 to 11 frames of a successful episode, or None.
        calibration: What `load_calibration` takes, or None.
        max_buffer_bytes: Bound of the buffered frames' bytes, of each env.
        sim_success_weight: The bonus of ``mode="shaping"``.

    Raises:
        ConfigError: One of them can't be that.
    """

    critic: Critic | str
    rule: TrainingRule
    mode: Mode = "train"
    max_episode_steps: int | None = None
    task: str | None = None
    frame: FrameSource | None = None
    on_sim_terminated: Literal["ignore", "truncate"] = "ignore"
    on_critic_error: CriticFailurePolicy = field(default_factory=CriticFailurePolicy)
    on_critic_mismatch: OnMismatch = "raise"
    references: Sequence[Frame] | None = None
    calibration: str | None = None
    max_buffer_bytes: int = 256 * 2**20
    sim_success_weight: float = 1.0

    def __post_init__(self) -> None:
        check_critic(self.critic)
        check_mode(self.mode)
        check_choice("on_sim_terminated", self.on_sim_terminated, ("ignore", "truncate"))
        check_choice("on_critic_mismatch", self.on_critic_mismatch, ("raise", "warn"))
        _check_references(self.references)
        if self.task is not None and (not isinstance(self.task, str) or not self.task.strip()):
            raise ConfigError(f"Expected task as a text, or None for info['task'], got {self.task!r}.")
        check_int("max_buffer_bytes", self.max_buffer_bytes, minimum=1)
        if not is_number(self.sim_success_weight):
            raise ConfigError(
                f"Expected sim_success_weight as a finite number, got {self.sim_success_weight!r}."
            )


def reward_config(critic: Critic | str, options: RewardOptions) -> RewardConfig:
    """The wrappers' keyword form, checked.

    Raises:
        ConfigError: Unknown preset or option, a value out of range, or a bad calibration file.
    """
    names = {item.name for item in fields(RewardConfig)} - {"critic", "rule"}
    rest: dict[str, Any] = dict(options)
    own = {name: rest.pop(name) for name in names & set(rest)}
    if "on_critic_error" in own:
        own["on_critic_error"] = failure_policy(own["on_critic_error"])
    rule = resolve_rule(
        rest.pop("preset", "vlac"), own.get("calibration"), rest, own.get("max_episode_steps")
    )
    return RewardConfig(critic=critic, rule=rule, **own)


def resolve_rule(
    preset: str,
    calibration: str | None,
    options: Mapping[str, Any],
    max_episode_steps: int | None,
) -> TrainingRule:
    """The preset's rule, with the calibration file's thresholds, with the options.

    Raises:
        ConfigError: Unknown preset or option, a value out of range, or a bad calibration file.
    """
    if max_episode_steps is not None:
        check_int("max_episode_steps", max_episode_steps, minimum=1)
    calibrated: dict[str, Any] = {}
    if calibration is not None:
        from vlac_gym.rule.calibration import load_calibration

        calibrated = load_calibration(calibration).rule_options()
    return training_rule(preset, **(calibrated | dict(options)))


def check_mode(mode: object) -> None:
    """Raises `ConfigError` with the nearest mode unless it is one."""
    check_choice("mode", mode, ("train", "eval", "shaping"))


def _check_references(references: Sequence[Frame] | None) -> None:
    if references is None:
        return
    if not isinstance(references, Sequence | np.ndarray):
        raise ConfigError(f"Expected references as a sequence of frames, got {references!r}.")
    if not 2 <= len(references) <= 11:
        raise ConfigError(f"Expected 2 to 11 reference frames, got {len(references)}.")
    check_frames(references, "references")


def without_mode(options: dict[str, Any] | None) -> tuple[dict[str, Any] | None, Mode | None]:
    """A reset's options without `mode`, and the mode, if there is one; `options` is left as it is.

    Raises:
        ConfigError: There is no such mode.
    """
    if not options or "mode" not in options:
        return options, None
    check_mode(options["mode"])
    rest = {key: value for key, value in options.items() if key != "mode"}
    return rest or None, options["mode"]
