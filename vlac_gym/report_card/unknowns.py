"""What a critic does not know of the episodes it is measured on: `settle_unknowns`."""

__all__ = ["settle_unknowns"]

from vlac_gym.critic.knowledge import Mismatch, OnMismatch, find_mismatches, settle_mismatches
from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.types import CriticInfo


def settle_unknowns(
    info: CriticInfo,
    dataset: EpisodeDataset,
    *,
    camera: str | None,
    has_references: bool,
    on_mismatch: OnMismatch,
) -> list[str]:
    """Compares the critic with every task of the episodes, their view and renderers.

    Returns:
        What it does not know, each once; for the card, once warnings were logged.

    Raises:
        ConfigError: Something grave, and `on_mismatch` is `raise`.
    """
    found: dict[Mismatch, None] = {}
    view = next(iter(dataset[0].frames)) if camera is None else camera
    for entry in dataset.entries:
        for mismatch in find_mismatches(
            info,
            task=entry.meta.task,
            task_suite=entry.meta.task_suite,
            view=view,
            renderer=entry.meta.details.get("renderer"),
            inputs=("references",) if has_references else (),
        ):
            found[mismatch] = None
    settle_mismatches(info, list(found), on_mismatch)
    return [mismatch.text for mismatch in found]
