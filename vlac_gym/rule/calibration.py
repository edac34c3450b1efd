"""Thresholds that a report card recommends for one critic, as a file: `Calibration`, `load_calibration`.

The file is the `calibration` object of a report card's `card.json`, or that object alone. A critic that ships with
the package brings its own, by name: `SHIPPED_CALIBRATIONS`. numpy-free.
"""

__all__ = ["CALIBRATION_VERSION", "SHIPPED_CALIBRATIONS", "Calibration", "load_calibration"]

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlac_gym.checks import check_int, check_unit
from vlac_gym.errors import ConfigError

CALIBRATION_VERSION = 2

SHIPPED_CALIBRATIONS: dict[str, Path] = {
    "nano": Path(__file__).parents[1] / "critic" / "nano" / "calibration.json"
}
"""Critic that ships with the package -> the thresholds recommended for it; `load_calibration` takes the name."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Stop thresholds measured for one critic.

    Attributes:
        critic: Spec of the critic that was measured, e.g. `"transformers:/models/vlac"`; thresholds of one
            critic say nothing about another.
        critic_fingerprint: Its `CriticInfo.fingerprint`; a reward wrapper refuses any other critic.
        done_threshold: `success_prob` at or above this counts as done, [0, 1].
        done_patience: Consecutive done checks that stop an episode, >= 1.
        done_interval: Env steps between checks during the measurement, >= 1; patience counts checks, so
            another interval is another rule.
        min_steps: No stop before this env step, >= 0.
        false_stop_budget: Largest false-positive rate per failed episode that was asked for, [0, 1].
        false_positive_rate: The one measured with these thresholds.
        miss_rate: Share of successful episodes never stopped, measured; None without successes.
        episodes: How many recorded episodes the choice rests on.
        task_suites: The suites they come from.
        meets_budget: False if no thresholds met the budget and these are the nearest.

    Raises:
        ConfigError: A value is out of its range.
    """

    critic: str
    critic_fingerprint: str
    done_threshold: float
    done_patience: int = 1
    done_interval: int = 1
    min_steps: int = 0
    false_stop_budget: float | None = None
    false_positive_rate: float | None = None
    miss_rate: float | None = None
    episodes: int = 0
    task_suites: tuple[str, ...] = ()
    meets_budget: bool = True

    def __post_init__(self) -> None:
        for name in ("done_threshold", "false_stop_budget", "false_positive_rate", "miss_rate"):
            value = getattr(self, name)
            optional = name != "done_threshold"
            if not (optional and value is None):
                check_unit(f"calibration {name}", value)
        for name, minimum in (("done_patience", 1), ("done_interval", 1), ("min_steps", 0), ("episodes", 0)):
            check_int(f"calibration {name}", getattr(self, name), minimum)

    def rule_options(self) -> dict[str, Any]:
        """The fields that `vlac_gym.rule.reward.training_rule` takes."""
        return {
            "done_threshold": self.done_threshold,
            "done_patience": self.done_patience,
            "done_interval": self.done_interval,
            "min_steps": self.min_steps,
        }

    def mismatch(self, fingerprint: str) -> str | None:
        """Why a critic with this `CriticInfo.fingerprint` is not the one that was measured; None if it is."""
        if fingerprint == self.critic_fingerprint:
            return None
        return (
            f"the calibration was measured on another critic ({self.critic!r}, fingerprint "
            f"{self.critic_fingerprint}; this one's is {fingerprint})"
        )

    def as_json(self) -> dict[str, Any]:
        """A JSON-serialisable mapping that `load_calibration` reads."""
        return {"version": CALIBRATION_VERSION, **dataclasses.asdict(self)}


def load_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Reads thresholds from a report card's `card.json`.

    Args:
        path: The file, or a name in `SHIPPED_CALIBRATIONS`; a file of such a name needs a folder before it
            (`./nano`).

    Raises:
        ConfigError: No such file, not JSON, no calibration inside (the card says why), or a bad value.
    """
    file = SHIPPED_CALIBRATIONS.get(os.fspath(path)) or Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise ConfigError(
            f"No calibration file at {file}. Make one with `vlac-gym report-card --out DIR`; it is DIR/card.json."
        ) from e
    except (OSError, ValueError) as e:
        raise ConfigError(f"Expected a report card (JSON) at {file}, but it can't be read: {e}") from e
    fields = content.get("calibration", content) if isinstance(content, Mapping) else None
    if fields is None:
        raise ConfigError(
            f"{file} recommends no thresholds: {content.get('calibration_reason', 'no reason is given')}."
            if isinstance(content, Mapping)
            else f"Expected a JSON object in {file}, got {type(content).__name__}."
        )
    return _parse(fields, file)


def _parse(fields: Any, file: Path) -> Calibration:
    known = {field.name for field in dataclasses.fields(Calibration)}
    if not isinstance(fields, Mapping) or "done_threshold" not in fields or "critic" not in fields:
        raise ConfigError(f"{file} holds no calibration: expected 'critic' and 'done_threshold' in it.")
    if fields.get("version") != CALIBRATION_VERSION:
        raise ConfigError(
            f"Expected calibration version {CALIBRATION_VERSION} in {file}, got {fields.get('version')!r}. "
            "Make the report card again."
        )
    if not isinstance(fields.get("critic_fingerprint"), str):
        raise ConfigError(
            f"Expected the measured critic's fingerprint as 'critic_fingerprint' in {file}, got "
            f"{fields.get('critic_fingerprint')!r}. Make the report card again."
        )
    unknown = sorted(set(fields) - known - {"version"})
    if unknown:
        raise ConfigError(f"{file} has unknown calibration fields {unknown}; known are {sorted(known)}.")
    values = {name: value for name, value in fields.items() if name != "version"}
    return Calibration(**{**values, "task_suites": tuple(values.get("task_suites", ()))})
