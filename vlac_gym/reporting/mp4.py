"""Pictures to mp4 with ffmpeg, whole or not at all: `write_mp4`. Extra `video`."""

__all__ = ["require_video_packages", "write_mp4"]

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from vlac_gym.errors import DependencyNotInstalled
from vlac_gym.extras import needs
from vlac_gym.files.atomic import partial_path
from vlac_gym.frames.files import ANNOTATED_MARK
from vlac_gym.types import Frame

_LOOKS_GOOD = ("libx264", "yuv420p", ["-crf", "20"])
_IS_EXACT = ("libx264rgb", "rgb24", ["-qp", "0"])  # H.264's lossless mode; every pixel comes back


def require_video_packages(*, videos: bool = True) -> None:
    """Raises `DependencyNotInstalled` unless plots and pages can be made, and videos, if there are to be any."""
    names = ("matplotlib", "PIL", "jinja2", *(("imageio_ffmpeg",) if videos else ()))
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise DependencyNotInstalled(
            f'Plots, videos and pages need {", ".join(missing)}. Run: pip install "vlac-gym[video]"'
        )


def write_mp4(
    pictures: Iterable[Frame], path: Path, *, fps: float, hold_s: float = 0.0, is_recording: bool = False
) -> None:
    """Writes one mp4 (H.264), whole or not at all.

    Args:
        pictures: uint8 (H, W, 3) RGB, one or more, all of one size; without `is_recording` the size must be even.
        path: Target, ending in `.mp4`; replaced if it exists.
        fps: Pictures per second, above 0.
        hold_s: The last picture stands still for so many seconds more.
        is_recording: The pictures are what a camera saw: each pixel is kept exactly. Otherwise they are for people,
            of a format that every player knows, and marked as annotated.

    Raises:
        DependencyNotInstalled: imageio-ffmpeg is missing.
        OSError: ffmpeg failed, or wrote fewer pictures than it was given.
    """
    with needs("A video", "video"):
        import imageio_ffmpeg
    codec, pixels, options = _IS_EXACT if is_recording else _LOOKS_GOOD
    if not is_recording:
        options = [*options, "-metadata", f"comment={ANNOTATED_MARK}"]
    left = iter(pictures)
    picture = next(left)
    partial = partial_path(path)
    try:
        # ffmpeg runs in its own process group there, so Ctrl-C in a terminal does not reach it.
        writer = imageio_ffmpeg.write_frames(
            str(partial),
            (picture.shape[1], picture.shape[0]),
            fps=fps,
            codec=codec,
            pix_fmt_out=pixels,
            quality=None,
            macro_block_size=1,
            output_params=options,
        )
        writer.send(None)
        expected = 1
        try:
            writer.send(picture)
            for picture in left:
                writer.send(picture)
                expected += 1
            for _ in range(round(hold_s * fps)):
                writer.send(picture)
                expected += 1
        finally:
            writer.close()
        written, _ = imageio_ffmpeg.count_frames_and_secs(str(partial))
        if written != expected:
            raise OSError(f"ffmpeg wrote {written} of {expected} pictures to {path}. Is the disk full?")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
