"""A folder of recorded episodes: `EpisodeDataset`, `EpisodeEntry`.

The folder holds `episodes/*.npz` and, once somebody asked for it, `manifest.json`: a cache of what a scan
of the episode files finds. Files are the truth; a missing or stale manifest costs time and nothing else.
"""

__all__ = ["DATASET_FILES", "EpisodeDataset", "EpisodeEntry"]

import dataclasses
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.data.episodes import EPISODE_FORMAT, Episode, EpisodeMeta, read_episode, read_meta
from vlac_gym.errors import ConfigError

DATASET_FILES = ("episodes", "manifest.json", ".manifest.json.*.tmp")
"""Names (shell patterns) of all that such a folder holds."""


@dataclass(frozen=True)
class EpisodeEntry:
    """What the index knows of one episode.

    Attributes:
        file: File name below `episodes/`.
        meta: See `EpisodeMeta`.
        num_steps: Env steps taken.
        num_frames: Frames kept per camera.
        first_success_step: First step with success, None if the simulator never saw it.
        ends_in_success: Whether the goal holds at the last step.
        stamp: File size and modification time (ns), to notice that it was replaced.
    """

    file: str
    meta: EpisodeMeta
    num_steps: int
    num_frames: int
    first_success_step: int | None
    ends_in_success: bool
    stamp: tuple[int, int]

    @property
    def succeeded(self) -> bool:
        """Whether the simulator saw success at any step."""
        return self.first_success_step is not None


class EpisodeDataset(Sequence[Episode]):
    """Reads a folder of episodes; an episode is loaded when it is indexed, a frame when it is looked at.

    Example:
        >>> dataset = EpisodeDataset.open("runs/episodes")  # doctest: +SKIP
        >>> train, held_out = dataset.split_by_init_state(range(40, 50))  # doctest: +SKIP
    """

    def __init__(self, root: Path, entries: Sequence[EpisodeEntry]) -> None:
        self.root = root
        self.entries = tuple(entries)

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> "EpisodeDataset":
        """Scans a folder, in order of file names. Writes nothing.

        Raises:
            ConfigError: There is no such folder, or it holds no episode, or one of them is damaged.
        """
        folder = Path(root)
        if not folder.is_dir():
            raise ConfigError(
                f"No folder of episodes at {folder}. Make one with `vlac-gym collect --out {folder}`."
            )
        known = _read_manifest(folder)
        entries = [
            _scan(path, known.get(path.name))
            for path in sorted((folder / "episodes").glob("*.npz"))
            if not path.name.startswith(".")
        ]
        if not entries:
            raise ConfigError(f"{folder} holds no episode. Make some with `vlac-gym collect --out {folder}`.")
        return cls(folder, entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return EpisodeDataset(self.root, self.entries[index])
        return read_episode(self.root / "episodes" / self.entries[index].file)

    def __iter__(self) -> Iterator[Episode]:
        return (self[i] for i in range(len(self)))

    def select(self, keep: Callable[[EpisodeEntry], bool]) -> "EpisodeDataset":
        """The episodes for which `keep(entry)` holds; loads none of them."""
        return EpisodeDataset(self.root, [entry for entry in self.entries if keep(entry)])

    def split_by_init_state(self, held_out: Collection[int]) -> tuple["EpisodeDataset", "EpisodeDataset"]:
        """Splits into (the rest, episodes that began from a held-out initial state), over every task.

        Never splits by frame or by episode alone: frames of one start resemble each other too much.

        Raises:
            ConfigError: One of the two parts would be empty.
        """
        return self._split(
            lambda meta: meta.init_state_id in set(held_out), f"init states {sorted(held_out)}"
        )

    def split_by_task(
        self, held_out: Collection[tuple[str, int]]
    ) -> tuple["EpisodeDataset", "EpisodeDataset"]:
        """Splits into (the rest, episodes of the held-out `(task_suite, task_id)` pairs)."""
        return self._split(
            lambda meta: (meta.task_suite, meta.task_id) in set(held_out), f"tasks {sorted(held_out)}"
        )

    def _split(
        self, is_held_out: Callable[[EpisodeMeta], bool], what: str
    ) -> tuple["EpisodeDataset", "EpisodeDataset"]:
        rest = self.select(lambda entry: not is_held_out(entry.meta))
        held_out = self.select(lambda entry: is_held_out(entry.meta))
        for part, dataset in (("rest", rest), ("held-out part", held_out)):
            if not dataset:
                raise ConfigError(
                    f"Holding out {what} leaves the {part} of {self.root} empty "
                    f"({len(self)} episodes in all). Choose others, or collect more."
                )
        return rest, held_out

    def tasks(self) -> dict[tuple[str, int], str]:
        """`(task_suite, task_id)` -> instruction, sorted."""
        return dict(sorted({(e.meta.task_suite, e.meta.task_id): e.meta.task for e in self.entries}.items()))

    def summary(self) -> dict[str, int]:
        """Counts: episodes, steps, frames, successes, undone successes and episodes per imperfection."""
        kinds: dict[str, int] = {}
        for entry in self.entries:
            kinds[f"imperfection/{entry.meta.imperfection}"] = (
                kinds.get(f"imperfection/{entry.meta.imperfection}", 0) + 1
            )
        return {
            "episodes": len(self),
            "steps": sum(e.num_steps for e in self.entries),
            "frames": sum(e.num_frames for e in self.entries),
            "successes": sum(e.succeeded for e in self.entries),
            "undone": sum(e.succeeded and not e.ends_in_success for e in self.entries),
            **dict(sorted(kinds.items())),
        }

    def write_manifest(self) -> Path:
        """Writes the index, so that the next `open` need not look into each file. Returns its path."""
        path = self.root / "manifest.json"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        text = json.dumps(
            {"format": EPISODE_FORMAT, "episodes": [dataclasses.asdict(e) for e in self.entries]}
        )
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
        return path


def _scan(path: Path, known: EpisodeEntry | None) -> EpisodeEntry:
    status = path.stat()
    stamp = (status.st_size, status.st_mtime_ns)
    if known is not None and known.stamp == stamp:
        return known
    meta, success, num_frames = read_meta(path)
    return EpisodeEntry(
        file=path.name,
        meta=meta,
        num_steps=len(success) - 1,
        num_frames=num_frames,
        first_success_step=int(np.argmax(success)) if success.any() else None,
        ends_in_success=bool(success[-1]),
        stamp=stamp,
    )


def _read_manifest(folder: Path) -> Mapping[str, EpisodeEntry]:
    """Entries of the cache by file name; empty if there is none or it does not parse: files are the truth."""
    try:
        content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if content["format"] != EPISODE_FORMAT:
            return {}
        rows = content["episodes"]
        entries = [
            EpisodeEntry(**{**row, "meta": EpisodeMeta(**row["meta"]), "stamp": tuple(row["stamp"])})
            for row in rows
        ]
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return {}
    return {entry.file: entry for entry in entries}
