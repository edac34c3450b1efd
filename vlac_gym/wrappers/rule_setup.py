"""Arguments that the single and the vector reward wrapper share, checked: `check_arguments`, `resolve_rule`."""

__all__ = ["check_arguments", "check_mode", "resolve_rule", "without_mode"]

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlac_gym.critic.base import check_frames
from vlac_gym.critic.registry import check_critic
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.reward import TrainingRule, training_rule
from vlac_gym.types import Frame, Mode

_MODES = ("train", "eval", "shaping")


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
    if max_episode_steps is not None and (
        isinstance(max_episode_steps, bool) or not isinstance(max_episode_steps, int) or max_episode_steps < 1
    ):
        raise ConfigError(f"Expected max_episode_steps as an int >= 1 or None, got {max_episode_steps!r}.")
    calibrated: dict[str, Any] = {}
    if calibration is not None:
        from vlac_gym.calibration import load_calibration

        calibrated = load_calibration(calibration).rule_options()
    return training_rule(preset, **(calibrated | dict(options)))


def check_arguments(
    *,
    critic: object,
    mode: object,
    task: object,
    on_sim_terminated: object,
    on_critic_error: object,
    on_critic_mismatch: object,
    references: Sequence[Frame] | None,
    max_buffer_bytes: object,
    sim_success_weight: object,
) -> None:
    """Raises `ConfigError` unless each of a reward wrapper's arguments can be what the wrapper says it is."""
    check_critic(critic)
    check_mode(mode)
    _check_choice("on_sim_terminated", on_sim_terminated, ("ignore", "truncate"))
    _check_choice("on_critic_error", on_critic_error, ("raise", "truncate"))
    _check_choice("on_critic_mismatch", on_critic_mismatch, ("raise", "warn"))
    _check_references(references)
    if task is not None and (not isinstance(task, str) or not task.strip()):
        raise ConfigError(f"Expected task as a text, or None for info['task'], got {task!r}.")
    if isinstance(max_buffer_bytes, bool) or not isinstance(max_buffer_bytes, int) or max_buffer_bytes < 1:
        raise ConfigError(f"Expected max_buffer_bytes as an int >= 1, got {max_buffer_bytes!r}.")
    is_number = isinstance(sim_success_weight, int | float) and not isinstance(sim_success_weight, bool)
    if not is_number or not math.isfinite(sim_success_weight):  # type: ignore[arg-type]
        raise ConfigError(f"Expected sim_success_weight as a finite number, got {sim_success_weight!r}.")


def check_mode(mode: object) -> None:
    """Raises `ConfigError` with the nearest mode unless it is one."""
    _check_choice("mode", mode, _MODES)


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise unknown_name(name, str(value), choices)


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
