import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vlac_gym.errors import ConfigError, DependencyNotInstalled
from vlac_gym.reporting.curves import _add_legend, draw_panel, save_curves_png
from vlac_gym.reporting.episode_picture import COLORS, picture_of_trace


def read_picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def _count(picture: np.ndarray, name: str) -> int:
    color = [int(COLORS[name][i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(picture.astype(int) - color).max(axis=2) < 8).sum())


def test_panel_uncovers_curves_from_left_to_right(train_picture):
    panel = draw_panel(train_picture(num_steps=10), 624, 344)

    assert panel.full.shape == panel.blank.shape == (344, 624, 3)
    assert panel.columns.tolist() == sorted(panel.columns.tolist())
    assert len(panel.columns) == 11
    seen = [_count(panel.at(step), "success_prob") for step in (0, 5, 10)]
    assert seen[0] < seen[1] < seen[2]
    right_of_now = int(panel.columns[5]) + 3
    assert np.array_equal(panel.at(5)[:, right_of_now:], panel.blank[:, right_of_now:])
    assert np.array_equal(panel.at(10)[:, : panel.columns[10]], panel.full[:, : panel.columns[10]])


def test_curves_of_an_episode_without_critic_show_none_of_its_colors(eval_picture):
    panel = draw_panel(eval_picture(), 624, 344)

    assert _count(panel.full, "success_prob") == 0
    assert _count(panel.full, "value") == 0


def test_drawing_leaves_pyplot_alone(train_picture, tmp_path):
    was_loaded = "matplotlib.pyplot" in sys.modules
    save_curves_png(train_picture(), tmp_path / "plot.png")

    assert ("matplotlib.pyplot" in sys.modules) == was_loaded


def test_png_shows_the_frames_and_both_marks(train_picture, tmp_path):
    save_curves_png(train_picture(), tmp_path / "plot.png", title="train mode")
    picture = read_picture(tmp_path / "plot.png")[:, :, :3]

    assert picture.shape == (680 + 22 + 2 * 20, 1100, 3)  # two dimensions of the actions
    assert picture[168, 40].tolist() == [0, 0, 0]  # the reset frame is the first of the strip
    assert _count(picture, "success_prob") > 500
    assert _count(picture, "sim") > 200


def test_png_without_frames_is_lower(train_picture, tmp_path):
    save_curves_png(dataclasses.replace(train_picture(), frames=()), tmp_path / "plot.png")

    assert read_picture(tmp_path / "plot.png").shape[:2] == (492, 1100)


def test_a_long_instruction_takes_a_second_line_of_the_png(train_picture, tmp_path):
    task = "put the white mug on the left plate " * 4
    save_curves_png(train_picture(task=task), tmp_path / "plot.png")

    picture = read_picture(tmp_path / "plot.png")[:, :, :3]
    assert picture.shape == (764, 1100, 3)
    assert (picture[36:56, :200] < 100).any()
    assert picture[190, 40].tolist() == [0, 0, 0]


def test_png_has_the_actions_below_the_curves(train_trace, tmp_path):
    def draw(*actions):
        trace = train_trace(num_steps=len(actions))
        steps = [dataclasses.replace(s, action=a) for s, a in zip(trace.steps, actions, strict=True)]
        picture = picture_of_trace(dataclasses.replace(trace, steps=tuple(steps), frames=()))
        save_curves_png(picture, tmp_path / "plot.png")
        return read_picture(tmp_path / "plot.png")[:, :, :3]

    resting, closing = (draw((0.0, -1.0), (0.0, -1.0), (0.0, last), (0.0, last)) for last in (-1.0, 1.0))
    below = resting.shape[0] - 74 - 2 * 20
    rows, columns = np.nonzero((resting != closing).any(axis=2))
    assert rows.min() >= below + 20  # the second row alone
    assert rows.max() <= below + 40
    assert columns.min() > 500  # from the third of four steps on
    assert draw((), (), (), ()).shape[0] == 430
    assert draw((float("nan"),), (0.0,)).shape[0] == 430 + 22 + 20


def test_tiny_panel_is_refused(train_picture):
    with pytest.raises(ConfigError, match="at least 200x150 pixels, got 10x10"):
        draw_panel(train_picture(), 10, 10)


def test_missing_matplotlib_names_the_extra(train_picture, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(DependencyNotInstalled, match=r"vlac-gym\[video\]"):
        save_curves_png(train_picture(), tmp_path / "plot.png")
    assert list(tmp_path.iterdir()) == []


def test_the_legend_names_the_threshold_where_its_line_is_drawn(train_picture, eval_picture):
    for picture, expected in ((train_picture(), ["threshold 0.9"]), (eval_picture(), [])):
        figure = Figure()
        _add_legend(figure, picture)
        texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert [text for text in texts if "threshold" in text] == expected
