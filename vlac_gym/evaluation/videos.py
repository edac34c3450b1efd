"""Videos of an evaluation's episodes, failures first: `VideoShelf`."""

__all__ = ["VideoShelf"]

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from vlac_gym.envs.libero.simulator import CONTROL_HZ
from vlac_gym.evaluation.folder import EpisodeRecord
from vlac_gym.evaluation.playing import Footage
from vlac_gym.extras import needs
from vlac_gym.reporting.drawing import load_font
from vlac_gym.reporting.mp4 import write_mp4
from vlac_gym.types import Frame

_SIDE = 256
_BAR = 32
_HOLD_S = 1.0


class VideoShelf:
    """Keeps videos of at most so many episodes of each task: failures before successes, then the lowest numbers.

    Which ones stay follows from the episodes' results, not from their order in time.

    Args:
        path: The run's folder.
        per_task: Most videos of a task, 0 or more.
        recorded: Episodes that are finished already, with or without a video.
    """

    def __init__(self, path: Path, per_task: int, recorded: Iterable[EpisodeRecord]) -> None:
        self._path = path
        self._per_task = per_task
        self._kept: dict[int, list[EpisodeRecord]] = {}  # by task
        for record in recorded:
            if (path / record.video).exists():
                self._kept.setdefault(record.task_id, []).append(record)

    def offer(self, record: EpisodeRecord, footage: Footage) -> None:
        """Writes the episode's video if it is among those to keep, and drops those whose place it takes.

        Args:
            record: The episode's.
            footage: Its pictures.
        """
        before = self._kept.get(record.task_id, [])
        kept = sorted([*before, record], key=_rank)[: self._per_task]
        if record not in kept or not footage.frames:
            return
        interval = float(np.median(np.diff(footage.frame_steps))) if len(footage.frames) > 1 else 1.0
        write_mp4(
            _captioned(record, footage),
            self._path / record.video,
            fps=CONTROL_HZ / max(interval, 1.0),
            hold_s=_HOLD_S,
        )
        for other in before:
            if other not in kept:
                (self._path / other.video).unlink()
        self._kept[record.task_id] = kept


def _rank(record: EpisodeRecord) -> tuple[bool, int]:
    return bool(record.success), record.episode


def _captioned(record: EpisodeRecord, footage: Footage) -> Iterator[Frame]:
    """The frames at 256 pixels, with a line below that says which episode and step it is, and how it ends."""
    with needs("A video", "video"):
        from PIL import Image, ImageDraw

    last = len(footage.frames) - 1
    for i, (frame, step) in enumerate(zip(footage.frames, footage.frame_steps, strict=True)):
        canvas = Image.new("RGB", (_SIDE, _SIDE + _BAR), "#111827")
        canvas.paste(Image.fromarray(frame).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
        draw, end = ImageDraw.Draw(canvas), _end(record) if i == last else ("", "white")
        text = f"task {record.task_id} · state {record.init_state_id} · step {step}"
        draw.text((8, _SIDE + 8), text, fill="white", font=load_font(13))
        draw.text((_SIDE - 8, _SIDE + 8), end[0], fill=end[1], font=load_font(13, is_bold=True), anchor="ra")
        yield np.asarray(canvas)


def _end(record: EpisodeRecord) -> tuple[str, str]:
    if record.lost is not None:
        return "lost", "#fbbf24"
    return ("success", "#4ade80") if record.success else ("failure", "#f87171")
