"""Videos of an evaluation's episodes, failures first: `VideoShelf`."""

__all__ = ["VideoShelf"]

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vlac_gym.envs.libero.simulator import CONTROL_HZ
from vlac_gym.evaluation.folder import EpisodeRecord
from vlac_gym.evaluation.playing import PlayedEpisode
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
    """

    def __init__(self, path: Path, per_task: int) -> None:
        self._path = path
        self._per_task = per_task

    def offer(self, record: EpisodeRecord, episode: PlayedEpisode, recorded: Sequence[EpisodeRecord]) -> None:
        """Writes the episode's video if it is among those to keep, and drops the one whose place it takes.

        Args:
            record: The episode's.
            episode: Its frames.
            recorded: All finished episodes before it.
        """
        same = [r for r in recorded if r.task_id == record.task_id and (self._path / r.video).exists()]
        kept = sorted([*same, record], key=_rank)[: self._per_task]
        if record not in kept or not episode.frames:
            return
        interval = float(np.median(np.diff(episode.frame_steps))) if len(episode.frames) > 1 else 1.0
        write_mp4(
            _captioned(record, episode),
            self._path / record.video,
            fps=CONTROL_HZ / max(interval, 1.0),
            hold_s=_HOLD_S,
        )
        for other in same:
            if other not in kept:
                (self._path / other.video).unlink()


def _rank(record: EpisodeRecord) -> tuple[bool, int]:
    return bool(record.success), record.episode


def _captioned(record: EpisodeRecord, episode: PlayedEpisode) -> Iterator[Frame]:
    """The frames at 256 pixels, with a line below that says which episode and step it is, and how it ends."""
    with needs("A video", "video"):
        from PIL import Image, ImageDraw

    last = len(episode.frames) - 1
    for i, (frame, step) in enumerate(zip(episode.frames, episode.frame_steps, strict=True)):
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
