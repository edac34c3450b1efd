"""Which episodes a critic is trained and validated on: `TrainingEpisodes`, `read_training_episodes`."""

__all__ = ["TrainingEpisodes", "read_training_episodes"]

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.data.episodes import Episode
from vlac_gym.data.verdicts import with_verdict
from vlac_gym.errors import ConfigError


@dataclass(frozen=True)
class TrainingEpisodes:
    """Episodes of one or more folders.

    Attributes:
        train: To learn from.
        validation: To choose the checkpoint by.
        num_old: How many of `train`, from the first, are of the first folder; the others are fresh.
    """

    train: list[Episode]
    validation: list[Episode]
    num_old: int


def read_training_episodes(
    folders: Sequence[Path],
    held_out: Collection[int],
    verdicts: Mapping[str, int | None] | None = None,
    *,
    all_views: bool = False,
) -> TrainingEpisodes:
    """Reads folders of episodes, one after the other.

    Args:
        folders: As `vlac-gym collect` writes them.
        held_out: Initial states whose episodes are for validation, in all folders.
        verdicts: Episode id -> first step of success, or None: replaces the simulator's labels (`with_verdict`).
        all_views: Give an episode once for each of its views, as if each had been recorded by itself, instead of with
            its first view alone.

    Raises:
        ConfigError: A folder is none, one of the two parts is empty, or a verdict is about no episode.
    """
    left = dict(verdicts or {})
    parts: tuple[list[Episode], list[Episode]] = ([], [])
    num_old = 0
    for number, folder in enumerate(folders):
        for episode in EpisodeDataset.open(folder):
            name = episode.meta.episode_id
            judged = with_verdict(episode, left.pop(name)) if name in left else episode
            own = _views(judged) if all_views else [judged]
            parts[episode.meta.init_state_id in held_out].extend(own)
        num_old = len(parts[0]) if number == 0 else num_old
    shown = ", ".join(map(str, folders))
    if left:
        raise ConfigError(
            f"Expected verdicts about episodes of {shown}, got {len(left)} about others, such as {next(iter(left))!r}."
        )
    for what, part in (("training", parts[0]), ("validation", parts[1])):
        if not part:
            raise ConfigError(
                f"Expected episodes for {what}, but keeping the initial states {sorted(held_out)} for validation "
                f"leaves none in {shown}. Choose others with --recipe.val-init-states, or collect more."
            )
    return TrainingEpisodes(*parts, num_old)


def _views(episode: Episode) -> list[Episode]:
    """An episode of one view for each view."""
    return [dataclasses.replace(episode, frames={name: frames}) for name, frames in episode.frames.items()]
