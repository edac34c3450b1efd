"""One-shot references of judged episodes: `ReferencePicker`, `reads_references`, `require_references`."""

__all__ = ["NUM_REFERENCES", "ReferencePicker", "reads_references", "require_references"]


import numpy as np

from vlac_gym.critic.vlac.prompts import sample_references
from vlac_gym.data.dataset import EpisodeDataset, EpisodeEntry
from vlac_gym.data.episodes import Episode, EpisodeMeta
from vlac_gym.errors import ConfigError
from vlac_gym.types import CriticInfo, Frame

NUM_REFERENCES = 9
"""Frames of one reference episode: the VLAC reference's `ref_num`."""


class ReferencePicker:
    """Finds a successful recorded episode of the same task that began from another initial state.

    Honest attempts come before spoilt ones, low initial states before high ones, so that the choice does not
    depend on chance. Its frames are spread evenly from the reset to the first success.

    Args:
        dataset: Where references come from; it may hold the judged episodes too.
        camera: Recorded view to take; None for the first.

    Attributes:
        dataset: As given.
    """

    def __init__(self, dataset: EpisodeDataset, camera: str | None = None) -> None:
        self.dataset = dataset
        self._camera = camera
        self._successes: dict[tuple[str, int], list[tuple[int, EpisodeEntry]]] = {}
        for index, entry in enumerate(dataset.entries):
            if entry.succeeded:
                key = (entry.meta.task_suite, entry.meta.task_id)
                self._successes.setdefault(key, []).append((index, entry))
        for found in self._successes.values():
            found.sort(key=lambda pair: (pair[1].meta.imperfection != "none", pair[1].meta.init_state_id))
        self._frames: dict[int, tuple[Frame, ...]] = {}

    def frames_for(self, meta: EpisodeMeta) -> tuple[Frame, ...] | None:
        """`NUM_REFERENCES` frames for judging an episode, None if its task has no such episode.

        Raises:
            ConfigError: The reference episode was recorded without the camera.
        """
        for index, entry in self._successes.get((meta.task_suite, meta.task_id), []):
            if entry.meta.init_state_id != meta.init_state_id:
                if index not in self._frames:
                    self._frames[index] = _references(self.dataset[index], self._camera)
                return self._frames[index]
        return None


def reads_references(info: CriticInfo) -> bool:
    """Whether a critic says that it takes reference frames: `num_references` in its details."""
    return "num_references" in (info.details or {})


def require_references(info: CriticInfo) -> None:
    """Raises `ConfigError` unless `reads_references`."""
    if not reads_references(info):
        raise ConfigError(
            f"Expected a critic that reads reference frames (num_references in describe().details), got "
            f"{info.name!r}. Judge it without references."
        )


def _references(episode: Episode, camera: str | None) -> tuple[Frame, ...]:
    view, first = episode.view(camera), episode.first_success_step
    last = int(np.searchsorted(episode.frame_steps, episode.num_steps if first is None else first))
    return tuple(view[i] for i in sample_references(range(last + 1), NUM_REFERENCES))
