"""Reading frames from videos and folders."""

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from vlac_gym.errors import ConfigError
from vlac_gym.frames.files import read_frames


def write_pictures(folder, levels, size=(8, 6)):
    folder.mkdir(exist_ok=True)
    for name, level in levels.items():
        Image.new("RGB", size, (level, 0, 0)).save(folder / name)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "ramp.mp4"
    writer = imageio_ffmpeg.write_frames(str(path), (64, 48), fps=10, macro_block_size=1)
    writer.send(None)
    for level in range(0, 240, 24):
        writer.send(np.full((48, 64, 3), level, np.uint8))
    writer.close()
    return path


def test_pictures_come_in_natural_order(tmp_path):
    write_pictures(tmp_path, {"frame10.png": 10, "frame2.png": 2, "frame1.png": 1, "frame2b.png": 3})
    (tmp_path / "notes.txt").write_text("not a picture")
    read = read_frames(tmp_path)
    assert [int(frame[0, 0, 0]) for frame in read.frames] == [1, 2, 3, 10]
    assert {(frame.shape, frame.dtype) for frame in read.frames} == {((6, 8, 3), np.dtype(np.uint8))}
    assert read.fps is None


def test_every_second_picture(tmp_path):
    write_pictures(tmp_path, {f"{i}.png": i for i in range(5)})
    assert [int(frame[0, 0, 0]) for frame in read_frames(tmp_path, every=2).frames] == [0, 2, 4]


def test_grey_and_transparent_pictures_become_rgb(tmp_path):
    Image.new("L", (4, 4), 77).save(tmp_path / "1.png")
    Image.new("RGBA", (4, 4), (9, 8, 7, 255)).save(tmp_path / "2.png")
    assert [frame[0, 0].tolist() for frame in read_frames(tmp_path).frames] == [[77, 77, 77], [9, 8, 7]]


def test_video_gives_all_frames_and_its_rate(video):
    read = read_frames(video)
    assert read.fps == 10.0
    levels = [float(frame.mean()) for frame in read.frames]
    assert len(levels) == 10
    np.testing.assert_allclose(levels, range(0, 240, 24), atol=4)  # lossy encoding
    assert read.frames[0].shape == (48, 64, 3)
    assert read.frames[0].flags.writeable


def test_thinned_video_keeps_its_tempo(video):
    read = read_frames(video, every=5)
    assert (len(read.frames), read.fps) == (2, 2.0)


def test_too_many_frames_are_refused(video):
    assert len(read_frames(video, max_frames=10).frames) == 10
    with pytest.raises(ConfigError, match=r"at most 9 frames, got more from .*Raise every, now 1"):
        read_frames(video, max_frames=9)


def test_missing_path_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.mp4' does not exist"):
        read_frames(tmp_path / "absent.mp4")


def test_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"Expected pictures \(.png, .*found none"):
        read_frames(tmp_path)


@pytest.mark.parametrize("content", [b"", b"this is no video"])
def test_file_that_is_no_video_is_refused(tmp_path, content):
    path = tmp_path / "fake.mp4"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"a video that ffmpeg reads, got .*fake.mp4"):
        read_frames(path)


def test_broken_picture_is_named(tmp_path):
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"a picture, but .*1.png' can't be read"):
        read_frames(tmp_path)


def test_picture_damaged_inside_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "1.png")
    data = bytearray((tmp_path / "1.png").read_bytes())
    second = data.index(b"IDAT", data.index(b"IDAT") + 4)
    data[second : second + 4] = b"\0\0\0\0"
    (tmp_path / "1.png").write_bytes(data)
    with pytest.raises(ConfigError, match=r"a picture, but .*1.png' can't be read: broken PNG"):
        read_frames(tmp_path)


def test_video_that_breaks_off_is_not_taken_for_a_short_one(video, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(video.read_bytes()[:400])
    with pytest.raises(ConfigError, match=r"a video that ffmpeg reads, got .*cut\.mp4"):
        read_frames(path)


def test_stride_below_one_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="every and max_frames >= 1, got 0"):
        read_frames(tmp_path, every=0)
