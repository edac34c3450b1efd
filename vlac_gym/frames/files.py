"""Reads frames from a video, a picture or a folder of pictures: `FrameFile`, `read_frames`. Needs the extra `video`."""

__all__ = ["ANNOTATED_MARK", "PICTURE_SUFFIXES", "FrameFile", "read_frames"]

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.frames.codec import DAMAGED_FILE
from vlac_gym.types import Frame

ANNOTATED_MARK = "vlac-gym: annotated, not a recording"
"""In the meta data (`comment`) of videos and plots that show more than a camera saw; `read_frames` refuses them."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclass(frozen=True, eq=False)
class FrameFile:
    """What was read.

    Attributes:
        path: Video, picture or folder.
        frames: uint8 (H, W, 3) RGB, in order.
        fps: Frames per second after leaving some out; None for pictures.
    """

    path: Path
    frames: tuple[Frame, ...]
    fps: float | None


def read_frames(path: Path | str, *, every: int = 1, max_frames: int = 3000) -> FrameFile:
    """Reads every `every`-th frame of a video, or of the pictures in a folder in natural order (2 before 10).

    Args:
        path: A video that ffmpeg reads, or a folder with PNG, JPEG, BMP or WebP pictures, or one of them.
        every: 1 keeps all, 6 makes a 30 fps video one of 5 fps.
        max_frames: Refuse more than this instead of filling the memory.

    Raises:
        ConfigError: Nothing there, not a video or picture, no frames, too many, or annotated pictures: a video or
            plot that this package drew, which shows curves beside the frames.
        DependencyNotInstalled: imageio-ffmpeg or pillow is missing.
    """
    path = Path(path)
    if every < 1 or max_frames < 1:
        raise ConfigError(f"Expected every and max_frames >= 1, got {every} and {max_frames}.")
    if not path.exists():
        raise ConfigError(f"Expected a video or a folder of pictures, but {str(path)!r} does not exist.")
    if path.is_dir():
        frames, fps = _take(_read_pictures(_pictures_in(path)[::every]), max_frames, path, every), None
    elif path.suffix.lower() in PICTURE_SUFFIXES:  # ffmpeg would not say that it is annotated
        frames, fps = list(_read_pictures([path])), None
    else:
        frames, fps = _read_video(path, every, max_frames)
    if not frames:
        raise ConfigError(f"Expected frames in {str(path)!r}, found none.")
    return FrameFile(path, tuple(frames), fps)


def _take(source: Iterator[Frame], max_frames: int, path: Path, every: int) -> list[Frame]:
    frames: list[Frame] = []
    for frame in source:
        if len(frames) == max_frames:
            raise ConfigError(
                f"Expected at most {max_frames} frames, got more from {str(path)!r}. Raise every, now {every}."
            )
        frames.append(frame)
    return frames


def _pictures_in(path: Path) -> list[Path]:
    pictures = sorted(
        (file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES), key=_natural_order
    )
    if not pictures:
        raise ConfigError(
            f"Expected pictures ({', '.join(PICTURE_SUFFIXES)}) in the folder {str(path)!r}, found none."
        )
    return pictures


def _read_pictures(files: Sequence[Path]) -> Iterator[Frame]:
    with needs("A picture", "video"):
        from PIL import Image, ImageOps
    for file in files:
        try:
            with Image.open(file) as image:
                is_annotated = image.info.get("Comment") == ANNOTATED_MARK
                frame = np.array(ImageOps.exif_transpose(image).convert("RGB"))
        except DAMAGED_FILE as e:
            raise ConfigError(f"Expected a picture, but {str(file)!r} can't be read: {e}") from e
        if is_annotated:
            raise _annotated(file)
        yield frame


def _read_video(path: Path, every: int, max_frames: int) -> tuple[list[Frame], float | None]:
    with needs("A video", "video"):
        import imageio_ffmpeg
    # PPM pictures carry their size, so one pass of ffmpeg is enough; its log has the rate and the errors. imageio's
    # readers leave the pipes of an ffmpeg that has ended open: a ResourceWarning, an error where warnings are errors.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-nostats", "-i", str(path)]
    command += ["-map", "0:v:0", "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process:
            assert process.stdout is not None
            try:
                frames = _take(_read_ppm(process.stdout, every), max_frames, path, every)
                process.stdout.close()  # ffmpeg must not wait for a reader that has stopped
                process.wait()
            finally:
                process.kill()
        log.seek(0)
        said = log.read().decode(errors="replace")
    if process.returncode or not frames:
        raise ConfigError(
            f"Expected a video that ffmpeg reads, got {str(path)!r} ({len(frames)} frames read): {_last_line(said)}"
        )
    if re.search(rf"^\s*comment\s*: {re.escape(ANNOTATED_MARK)}\s*$", said, re.MULTILINE):
        raise _annotated(path)
    rate = re.search(r"Video: .*?(\d+(?:\.\d+)?) fps", said)
    return frames, float(rate.group(1)) / every if rate else None


def _annotated(path: Path) -> ConfigError:
    return ConfigError(
        f"Expected a recording, got {str(path)!r}, which vlac-gym drew: its curves and texts are no camera's picture. "
        "Give the recording itself: `vlac-gym rollout` keeps it as episode-NNN.raw.mp4."
    )


def _read_ppm(stream: IO[bytes], every: int) -> Iterator[Frame]:
    """Pictures of a stream of binary PPMs as ffmpeg writes them: `P6`, width and height, 255, bytes."""
    number = 0
    while stream.readline() == b"P6\n":
        width, height = map(int, stream.readline().split())
        stream.readline()
        data = stream.read(width * height * 3)
        if len(data) < width * height * 3:
            return
        if number % every == 0:
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3).copy()
        number += 1


def _last_line(log: str) -> str:
    lines = log.strip().splitlines()
    return lines[-1].strip() if lines else "no message"


def _natural_order(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]
