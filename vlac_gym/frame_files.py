"""Reads frames from a video file or a folder of pictures: `FrameFile`, `read_frames`. Needs the extra `video`."""

__all__ = ["PICTURE_SUFFIXES", "FrameFile", "read_frames"]

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.errors import ConfigError, DependencyNotInstalled
from vlac_gym.types import Frame

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclass(frozen=True, eq=False)
class FrameFile:
    """What was read.

    Attributes:
        path: Video or folder.
        frames: uint8 (H, W, 3) RGB, in order.
        fps: Frames per second after leaving some out; None for a folder.
    """

    path: Path
    frames: tuple[Frame, ...]
    fps: float | None


def read_frames(path: Path | str, *, every: int = 1, max_frames: int = 3000) -> FrameFile:
    """Reads every `every`-th frame of a video, or of the pictures in a folder in natural order (2 before 10).

    Args:
        path: A video that ffmpeg reads, or a folder with PNG, JPEG, BMP or WebP pictures.
        every: 1 keeps all, 6 makes a 30 fps video one of 5 fps.
        max_frames: Refuse more than this instead of filling the memory.

    Raises:
        ConfigError: Nothing there, not a video or picture, no frames, or too many.
        DependencyNotInstalled: imageio-ffmpeg or pillow is missing.
    """
    path = Path(path)
    if every < 1 or max_frames < 1:
        raise ConfigError(f"Expected every and max_frames >= 1, got {every} and {max_frames}.")
    if not path.exists():
        raise ConfigError(f"Expected a video or a folder of pictures, but {str(path)!r} does not exist.")
    fps = None
    if path.is_dir():
        source = _read_folder(path, every)
    else:
        fps, source = _open_video(path, every)
    frames: list[Frame] = []
    for frame in source:
        if len(frames) == max_frames:
            raise ConfigError(
                f"Expected at most {max_frames} frames, got more from {str(path)!r}. Raise every, now {every}."
            )
        frames.append(frame)
    if not frames:
        raise ConfigError(f"Expected frames in {str(path)!r}, found none.")
    return FrameFile(path, tuple(frames), fps)


def _read_folder(path: Path, every: int) -> Iterator[Frame]:
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as e:
        raise DependencyNotInstalled('Pictures need pillow. Run: pip install "vlac-gym[video]"') from e
    pictures = sorted(
        (file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES), key=_natural_order
    )
    if not pictures:
        raise ConfigError(
            f"Expected pictures ({', '.join(PICTURE_SUFFIXES)}) in the folder {str(path)!r}, found none."
        )
    for file in pictures[::every]:
        try:
            with Image.open(file) as image:
                yield np.array(ImageOps.exif_transpose(image).convert("RGB"))
        except (UnidentifiedImageError, OSError) as e:
            raise ConfigError(f"Expected a picture, but {str(file)!r} can't be read: {e}") from e


def _open_video(path: Path, every: int) -> tuple[float, Iterator[Frame]]:
    try:
        import imageio_ffmpeg
    except ImportError as e:
        raise DependencyNotInstalled('Videos need imageio-ffmpeg. Run: pip install "vlac-gym[video]"') from e
    reader = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24")
    try:
        meta = next(reader)
    except (OSError, IndexError) as e:  # ffmpeg's log of a file without a video stream breaks its parser
        raise ConfigError(f"Expected a video that ffmpeg reads, got {str(path)!r}: {_last_line(e)}") from e
    width, height = meta["size"]
    return float(meta["fps"]) / every, _decode(reader, path, (height, width, 3), every)


def _decode(reader: Any, path: Path, shape: tuple[int, int, int], every: int) -> Iterator[Frame]:
    try:
        for number, data in enumerate(reader):
            if number % every == 0:
                yield np.frombuffer(data, np.uint8).reshape(shape).copy()
    except (OSError, RuntimeError) as e:
        raise ConfigError(f"The video {str(path)!r} broke off: {_last_line(e)}") from e
    finally:
        reader.close()


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _natural_order(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]
