"""Arguments that the single and the vector reward wrapper share, checked: `resolve_rule` and friends."""

__all__ = ["MODES", "check_choice", "check_references", "resolve_rule", "without_mode"]

from collections.abc import Mapping, Sequence
from typing import Any

from vlac_gym.critic.base import check_frames
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.reward import TrainingRule, training_rule
from vlac_gym.types import Frame, Mode

MODES = ("train", "eval", "shaping")


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


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raises `ConfigError` with the nearest choice unless `value` is one of them."""
    if value not in choices:
        raise unknown_name(name, str(value), choices)


def check_references(references: Sequence[Frame] | None) -> None:
    """Raises `ConfigError` unless there are 2 to 11 well-formed reference frames, or none."""
    if references is None:
        return
    if not 2 <= len(references) <= 11:
        raise ConfigError(f"Expected 2 to 11 reference frames, got {len(references)}.")
    check_frames(references, "references")


def without_mode(options: dict[str, Any] | None) -> tuple[dict[str, Any] | None, Mode | None]:
    """A reset's options without `mode`, and the mode, if there is one; `options` is left as it is."""
    if not options or "mode" not in options:
        return options, None
    rest = {key: value for key, value in options.items() if key != "mode"}
    return rest or None, options["mode"]
