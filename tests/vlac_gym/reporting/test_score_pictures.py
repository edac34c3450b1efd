"""Pictures of a score: sizes, what is uncovered when, and files whole or absent."""

import dataclasses

import imageio_ffmpeg
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vlac_gym.errors import ConfigError
from vlac_gym.reporting.curves import _add_legend, save_curves_png
from vlac_gym.reporting.episode_picture import COLORS, picture_of_score
from vlac_gym.reporting.video import compose_frames, write_video
from vlac_gym.rule.episode_score import EpisodeScore

NUM_FRAMES = 9


@pytest.fixture
def score():
    return EpisodeScore(
        task="open the drawer",
        num_frames=NUM_FRAMES,
        check_frames=tuple(range(NUM_FRAMES)),
        success_prob=np.array([0.1] * 6 + [0.95] * 3, np.float32),
        value_frames=(0, 4, 8),
        progress=np.array([0.6, -0.2], np.float32),
        values=np.array([0.0, 0.6, 0.52], np.float32),
        done_threshold=0.9,
    )


@pytest.fixture
def frames():
    return [np.full((40, 60, 3), 20 * i, np.uint8) for i in range(NUM_FRAMES)]


def colored(picture, color, left=560) -> int:
    """Pixels of a curve's colour within the axes of the panel."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(picture[80:400, left:].astype(int) - wanted).sum(axis=-1) < 12).sum())


def test_video_pictures_show_the_frame_and_uncover_the_curves(score, frames):
    pictures = list(compose_frames(picture_of_score(score, frames), subtitle="critic scripted"))
    assert {picture.shape for picture in pictures} == {(560, 1120, 3)}
    assert len(pictures) == NUM_FRAMES
    assert pictures[3][312, 240].tolist() == [60, 60, 60]
    values = [colored(picture, COLORS["value"]) for picture in pictures]
    assert values[0] < values[4] < values[8]
    regress = [colored(picture, "#b91c1c") for picture in pictures]
    assert regress[3] == 0
    assert regress[8] > 100


def test_mp4_holds_every_frame_and_a_standing_end(score, frames, tmp_path):
    path = tmp_path / "score.mp4"
    write_video(picture_of_score(score, frames), path, fps=2.0)
    assert imageio_ffmpeg.count_frames_and_secs(str(path)) == (NUM_FRAMES + 3, (NUM_FRAMES + 3) / 2.0)
    facts = next(imageio_ffmpeg.read_frames(str(path)))
    assert (facts["fps"], facts["source_size"]) == (2.0, (1120, 560))
    assert list(tmp_path.iterdir()) == [path]


def test_png_has_the_frames_above_the_curves(score, frames, tmp_path):
    path = tmp_path / "score.png"
    save_curves_png(picture_of_score(score, frames), path, title="critic scripted")
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape == (740, 1100, 3)
    assert picture[149, 97].tolist() == [0, 0, 0]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("is_short", "expected"), [(False, "threshold 0.9"), (True, "threshold")])
def test_the_legend_of_a_score_names_the_threshold(score, frames, is_short, expected):
    figure = Figure()
    _add_legend(figure, picture_of_score(score, frames), is_short=is_short)
    assert expected in [text.get_text() for text in figure.legends[0].get_texts()]


def test_one_frame_can_be_drawn(frames, tmp_path):
    score = EpisodeScore(
        "open", 1, (0,), np.ones(1, np.float32), (0,), np.zeros(0, np.float32), np.zeros(1, np.float32), 0.9
    )
    picture = picture_of_score(score, frames[:1])
    save_curves_png(picture, tmp_path / "score.png")
    assert len(list(compose_frames(picture))) == 1


def test_other_frames_than_the_scored_ones_are_refused(score, frames):
    with pytest.raises(ConfigError, match="Expected the 9 frames that were scored, got 8"):
        picture_of_score(score, frames[:8])


@pytest.mark.parametrize("fps", [0, -1.0, float("nan")])
def test_rate_that_is_not_positive_is_refused(score, frames, tmp_path, fps):
    with pytest.raises(ConfigError, match="Expected fps above 0"):
        write_video(picture_of_score(score, frames), tmp_path / "score.mp4", fps=fps)
    assert list(tmp_path.iterdir()) == []


def test_numbers_and_verdict_of_a_score(score, frames):
    picture = picture_of_score(score, frames)
    assert [text for text, _ in picture.readout(3)] == [
        "frame 3 / 8",
        "success_prob 0.10",
        "value 0.00",
        "progress –",
    ]
    assert [text for text, _ in picture.readout(8)][2:] == ["value 0.52", "progress -0.20"]
    (verdict,) = picture.verdicts
    assert [verdict.line(now, 8) for now in (5, 6, 8)] == [
        "critic: not done yet",
        "critic: DONE at frame 6",
        "critic: DONE at frame 6",
    ]
    never = picture_of_score(dataclasses.replace(score, done_threshold=1.0), frames).verdicts[0]
    assert never.line(8, 8) == "critic: not done at any frame"
