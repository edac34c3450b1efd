"""`vlac-gym score` from argument to files."""

import json

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from vlac_gym.cli import main
from vlac_gym.cli import score as score_command
from vlac_gym.critic import registry
from vlac_gym.critic.engines.scripted import ScriptedEngine
from vlac_gym.critic.vlac.critic import VLACCritic

TASK = "open the drawer"
made: list[tuple[VLACCritic, ScriptedEngine]] = []


def brightness_critic(argument, **options):
    """Done above level 70; a pair's progress is the difference of the levels."""

    def answer(request):
        levels = [int(frame[0, 0, 0]) for frame in request.frames]
        return str(int(levels[-1] > 70)) if request.answer == "number" else f"{levels[-1] - levels[-2]:+d}"

    engine = ScriptedEngine(answer)
    made.append((VLACCritic(engine, **options), engine))
    return made[-1][0]


@pytest.fixture(autouse=True)
def brightness(monkeypatch):
    monkeypatch.setitem(registry._CRITICS._factories, "brightness", f"{__name__}:brightness_critic")
    monkeypatch.setattr(score_command, "make_critic", lambda spec: brightness_critic(""))
    made.clear()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "episode"
    path.mkdir()
    for number, level in enumerate((0, 20, 40, 30, 60, 80)):
        Image.new("RGB", (32, 24), (level, level, level)).save(path / f"{number}.png")
    return path


def score(folder, out, *more):
    return main(["score", str(folder), "--task", TASK, "--critic", "brightness", "--out", str(out), *more])


def test_folder_is_scored_into_three_files(folder, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    assert score(folder, out, "--value-stride", "1") == 0
    assert sorted(path.name for path in out.iterdir()) == ["score.json", "score.mp4", "score.png"]
    document = json.loads((out / "score.json").read_text())
    assert document["format"] == "vlac_gym.score/1"
    assert document["source"] == str(folder)
    assert document["critic"]["prompt_version"] == "vlac-v3"
    assert document["first_done_frame"] == 5
    assert document["negative_rate"] == 0.2
    changes = [row["progress"] for row in document["progress"]]
    np.testing.assert_allclose(changes, [0.2, 0.2, -0.1, 0.3, 0.2], atol=1e-6)
    # 0.2, 0.36, 0.296, 0.5072, 0.60576 by v += (1 - v) c
    assert document["final_value"] == pytest.approx(0.60576, abs=1e-6)
    assert document["value_order_correlation"] == pytest.approx(33 / 35)  # one swap: 1 - 6 * 2 / 210
    assert imageio_ffmpeg.count_frames_and_secs(str(out / "score.mp4")) == (6 + 15, 2.1)  # 10 a second
    assert "first done               frame 5" in capsys.readouterr().out
    assert made[0][1].is_closed


def test_reference_is_sampled_and_shown(folder, tmp_path):
    out = tmp_path / "out"
    assert score(folder, out, "--reference", str(folder), "--reference-count", "3", "--no-video") == 0
    assert sorted(path.name for path in out.iterdir()) == ["score.json", "score.png"]
    pairs = [request for request in made[0][1].requests if request.answer == "signed_number"]
    assert [int(frame[0, 0, 0]) for frame in pairs[0].frames] == [0, 40, 80, 0, 0, 80]
    assert json.loads((out / "score.json").read_text())["num_references"] == 3


def test_every_thins_the_source(folder, tmp_path):
    out = tmp_path / "out"
    assert score(folder, out, "--every", "2", "--no-video") == 0
    assert json.loads((out / "score.json").read_text())["num_frames"] == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--task", "look <image>"], "could form a prompt marker"),
        (["--fps", "0"], "--fps above 0"),
        (["--reference", "absent.mp4"], "does not exist"),
        (["--value-stride", "0"], "value_stride >= 1"),
        (["--done-threshold", "2"], "done_threshold in [0, 1], got 2"),
        (["--critic", "brightnes"], "Did you mean 'brightness'"),
    ],
)
def test_bad_input_writes_nothing(folder, tmp_path, capsys, more, message):
    out = tmp_path / "out"
    assert score(folder, out, *more) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_missing_source_is_refused(tmp_path, capsys):
    assert score(tmp_path / "absent.mp4", tmp_path / "out") == 2
    assert "does not exist" in capsys.readouterr().err


def test_score_is_never_overwritten(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert score(folder, out, "--no-video") == 0
    before = (out / "score.json").read_bytes()
    assert score(folder, out, "--no-video") == 2
    assert "Expected a new or empty folder for --out" in capsys.readouterr().err
    assert (out / "score.json").read_bytes() == before


def test_failing_critic_is_closed_and_leaves_nothing(folder, tmp_path, capsys, monkeypatch):
    engine = ScriptedEngine(["no idea"] * 10)
    monkeypatch.setattr(score_command, "make_critic", lambda spec: VLACCritic(engine))
    assert score(folder, tmp_path / "out") == 1
    assert "got 'no idea'" in capsys.readouterr().err
    assert engine.is_closed
    assert not (tmp_path / "out").exists()


def test_what_this_package_drew_is_no_recording(folder, tmp_path, capsys):
    assert score(folder, tmp_path / "first") == 0
    for drawn in (*(tmp_path / "first" / f"score.{end}" for end in ("mp4", "png")), tmp_path / "first"):
        assert score(drawn, tmp_path / "second") == 2
        assert "which vlac-gym drew: its curves and texts are no camera's picture" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()


def test_arguments_are_checked_before_the_critic_is_made(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(score_command, "make_critic", lambda spec: pytest.fail("the critic was made"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    for more in (
        ["--done-threshold", "2"],
        ["--check-stride", "0"],
        ["--every", "0"],
        ["--reference-count", "99"],
    ):
        assert score(folder, tmp_path / "out", *more, "--reference", str(folder)) == 2
    assert score(folder, tmp_path / "mine") == 2
    assert not (tmp_path / "out").exists()
