import dataclasses
import sys

import imageio_ffmpeg
import numpy as np
import pytest

from vlac_gym.errors import ConfigError, DependencyNotInstalled
from vlac_gym.reporting.video import VIDEO_SIZE, WRIST_WIDTH, compose_frames, write_video


def test_mp4_holds_every_frame_and_a_still_end(train_picture, read_mp4, tmp_path):
    write_video(train_picture(num_steps=4), tmp_path / "episode.mp4", subtitle="train mode", fps=10)

    pictures = read_mp4(tmp_path / "episode.mp4")
    assert pictures.shape == (5 + 15, VIDEO_SIZE[1], VIDEO_SIZE[0], 3)
    levels = [int(picture[300, 240].mean()) for picture in pictures[:5]]
    assert np.allclose(levels, [0, 40, 80, 120, 160], atol=4)
    assert [p.name for p in tmp_path.iterdir()] == ["episode.mp4"]


def test_frames_are_composed_one_per_step_and_are_not_changed(train_picture):
    picture = train_picture(num_steps=3)
    before = [frame.copy() for frame in picture.frames]
    pictures = list(compose_frames(picture))

    assert [p.shape for p in pictures] == [(560, 1120, 3)] * 4
    assert all(np.array_equal(a, b) for a, b in zip(before, picture.frames, strict=True))


def test_marks_appear_in_the_text_only_once_their_step_is_reached(train_picture):
    pictures = list(compose_frames(train_picture(num_steps=6)))
    verdicts = [picture[475:540, 480:] for picture in pictures]

    assert np.array_equal(verdicts[0], verdicts[4])  # nothing seen yet
    assert not np.array_equal(verdicts[4], verdicts[5])  # the simulator sees success at step 5
    assert not np.array_equal(verdicts[5], verdicts[6])  # the critic says done at step 6


def test_frames_that_are_not_square_keep_their_shape(train_picture):
    wide = tuple(np.full((16, 64, 3), 255, np.uint8) for _ in range(3))
    wide_picture = dataclasses.replace(train_picture(num_steps=2), frames=wide)
    picture = next(compose_frames(wide_picture))

    assert picture[312, 240].tolist() == [255, 255, 255]
    assert picture[100, 240].tolist() == [17, 24, 39]


LONGEST_INSTRUCTION = (
    "put the white mug on the left plate and put the yellow and white mug on the right plate"
    " and turn off the stove"
)


def _header(train_picture, task):
    return next(compose_frames(train_picture(task=task), subtitle="train mode"))[:88]


def _ink_rows(header):
    return [int(row) for row in np.flatnonzero((header[:, :, :] < 60).all(axis=2).any(axis=1))]


def test_a_long_instruction_is_on_two_lines_and_none_of_it_is_cut(train_picture):
    one, two = (_header(train_picture, task) for task in ("stack", LONGEST_INSTRUCTION))

    assert max(_ink_rows(one)) < 37
    assert max(_ink_rows(two)) > 37  # the second line, as large as the first
    other_end = _header(train_picture, LONGEST_INSTRUCTION[:-5] + "ovens")
    assert not np.array_equal(two, other_end)
    assert np.array_equal(two[:36], other_end[:36])


@pytest.mark.parametrize("task", ["put the bowl away " * 30, "x" * 400, "put the bowl away " * 9, ""])
def test_instructions_of_any_length_stay_in_the_header(train_picture, task):
    header = _header(train_picture, task)

    assert (header[:, :16] == 255).all()
    assert (header[:, 1105:] == 255).all()
    assert (header[84:] == 255).all()


def test_the_wrist_view_is_shown_beside_the_frame(train_picture, tmp_path):
    picture = train_picture(num_steps=2)
    wrist = tuple(np.full((16, 16, 3), level, np.uint8) for level in (50, 60, 70))
    alone = list(compose_frames(picture))
    beside = list(compose_frames(dataclasses.replace(picture, wrist_frames=wrist)))

    assert {p.shape for p in beside} == {(560, 1120 + WRIST_WIDTH, 3)}
    assert [p[312, 704].tolist() for p in beside] == [[level] * 3 for level in (50, 60, 70)]
    for one, two in zip(alone, beside, strict=True):
        assert np.array_equal(one[88:, :472], two[88:, :472])  # the frame stays where it was
        assert np.array_equal(
            one[88:, 472:], two[88:, 472 + WRIST_WIDTH :]
        )  # so do curves and texts beside it


def test_missing_wrist_frames_are_refused(train_picture):
    picture = train_picture(num_steps=3)
    with pytest.raises(ConfigError, match=r"Expected 4 wrist frames .* got 2"):
        dataclasses.replace(picture, wrist_frames=picture.frames[:2])


def test_an_episode_without_frames_is_refused(train_picture, tmp_path):
    with pytest.raises(ConfigError, match="episode with frames, got none"):
        write_video(dataclasses.replace(train_picture(), frames=()), tmp_path / "a.mp4")


def test_missing_frames_are_refused_by_plots_and_videos_alike(train_picture):
    picture = train_picture(num_steps=3)
    with pytest.raises(ConfigError, match=r"Expected 4 frames .* got 2"):
        dataclasses.replace(picture, frames=picture.frames[:2])


def test_a_short_file_from_ffmpeg_is_an_error_and_leaves_nothing(train_picture, tmp_path, monkeypatch):
    monkeypatch.setattr(imageio_ffmpeg, "count_frames_and_secs", lambda path: (3, 0.1))

    with pytest.raises(OSError, match="ffmpeg wrote 3 of 35 pictures"):
        write_video(train_picture(num_steps=4), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_missing_ffmpeg_names_the_extra(train_picture, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)

    with pytest.raises(DependencyNotInstalled, match=r"vlac-gym\[video\]"):
        write_video(train_picture(), tmp_path / "a.mp4")
