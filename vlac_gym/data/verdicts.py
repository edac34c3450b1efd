"""A person's verdicts in the place of the simulator's labels, as for episodes of a real robot: `read_verdicts`,
`with_verdict`, `HAS_VERDICT`.

A CSV file with a header: `episode_id`, and `success_step`, the first step at which the task is done, empty if it never
is.
"""

__all__ = ["HAS_VERDICT", "read_verdicts", "with_verdict"]

import csv
import dataclasses
from pathlib import Path

import numpy as np

from vlac_gym.data.episodes import Episode
from vlac_gym.errors import ConfigError

HAS_VERDICT = "has_verdict"
"""Key of an episode's `details`: a verdict on success is all that is known of it, a person's or the simulator's; its
goal progress is not."""

_COLUMNS = ("episode_id", "success_step")


def read_verdicts(path: Path) -> dict[str, int | None]:
    """Episode id -> first step of success, None for a failure.

    Raises:
        ConfigError: No such file, other columns, an episode named twice, or a step that is no number.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), tuple(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise ConfigError(f"Expected a CSV file of verdicts at {path}, but it can't be read: {e}") from e
    if not set(_COLUMNS) <= set(columns):
        raise ConfigError(f"Expected the columns {', '.join(_COLUMNS)} in {path}, got {', '.join(columns)}.")
    verdicts: dict[str, int | None] = {}
    for line, row in enumerate(rows, start=2):
        name, step = row["episode_id"], (row["success_step"] or "").strip()
        if name in verdicts:
            raise ConfigError(f"Expected each episode once in {path}, got {name!r} again in line {line}.")
        if step and not step.isdecimal():
            raise ConfigError(
                f"Expected a step or nothing as success_step in line {line} of {path}, got {step!r}."
            )
        verdicts[name] = int(step) if step else None
    return verdicts


def with_verdict(episode: Episode, success_step: int | None) -> Episode:
    """The episode with a person's verdict: success from a step to the end, or never.

    How far each step is from the goal is not known: `goal_progress` is 1 from success on, else 0, and `details` has
    `HAS_VERDICT`, so that nothing is learned from pairs of its frames.

    Raises:
        ConfigError: The episode has no such step.
    """
    steps = np.arange(episode.num_steps + 1)
    if success_step is not None and success_step not in steps:
        raise ConfigError(
            f"Expected success_step from 0 to {episode.num_steps} of episode {episode.meta.episode_id}, got "
            f"{success_step}."
        )
    success = np.zeros(len(steps), np.bool_) if success_step is None else steps >= success_step
    details = {**episode.meta.details, HAS_VERDICT: True}
    return dataclasses.replace(
        episode,
        meta=dataclasses.replace(episode.meta, details=details),
        success=success,
        goal_progress=success.astype(np.float32),
    )
