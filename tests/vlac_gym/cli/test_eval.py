"""What `vlac-gym eval` refuses before any work, and what it tells of a run."""

import dataclasses
import importlib.util
import json
import sys

import pytest
from reaching import SETTINGS

from vlac_gym.cli import eval as eval_command
from vlac_gym.cli import main
from vlac_gym.evaluation.folder import EpisodeRecord, EvalFolder
from vlac_gym.evaluation.run import planned_episodes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task-suite", "libero_spacial"], "Unknown task suite"),
        (["--task-id", "10"], "task ids of libero_spatial"),
        (["--policy", "expart"], "Unknown policy 'expart'"),
        (["--critic", "nan"], "Unknown critic 'nan'"),
        (["--episodes-per-task", "0"], "at least one task and one episode"),
        (["--num-envs", "0"], "--num-envs >= 1"),
        (["--videos-per-task", "-1"], "--videos-per-task >= 0"),
        (["--image-size", "1"], "image_size"),
        (["--max-episode-steps", "0"], "step_limit|max_episode_steps"),
        (["--done-threshold", "2"], "done threshold in [0, 1]"),
        (["--resume", "absent"], "folder of a vlac-gym eval"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line_and_leaves_nothing(
    arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(eval_command, "evaluate", None)
    assert main(["eval", "--runs", str(tmp_path / "runs"), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert any(part in line for part in message.split("|"))
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_resumed_without_a_simulator_and_with_its_own_settings(tmp_path, capsys):
    settings = dataclasses.replace(SETTINGS, policy="zero", task_ids=(0,), episodes_per_task=2)
    path = tmp_path / "run"
    path.mkdir()
    folder = EvalFolder(path, vars(settings))
    for start, success in zip(planned_episodes(settings), (True, False)):
        folder.add(EpisodeRecord(**vars(start), task="stack", success=success, steps=5))
    assert main(["eval", "--resume", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "1/2  50.0%   9.5% … 90.5%" in printed
    assert json.loads((path / "results.json").read_text())["status"] == "complete"
    assert main(["eval", "--resume", str(path), "--seed", "4"]) == 2
    assert "no settings beside --resume" in capsys.readouterr().err


def test_what_writes_videos_is_asked_for_only_where_there_are_to_be_any(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "imageio_ffmpeg" else find(name)
    )
    monkeypatch.setattr(eval_command, "evaluate", lambda *_, **__: sys.exit(7))
    arguments = ["eval", "--runs", str(tmp_path / "runs"), "--policy", "zero", "--task-id", "0"]
    assert main(arguments) == 2
    assert "need imageio_ffmpeg" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--videos-per-task", "0"])
    assert stopped.value.code == 7


def test_every_run_has_a_folder_of_its_own(tmp_path):
    from vlac_gym.evaluation.folder import new_folder

    first = new_folder(tmp_path, "libero_goal")
    first.mkdir()
    second = new_folder(tmp_path, "libero_goal")
    assert first != second
    assert second.name.split("_")[2:] in (["libero", "goal-2"], ["libero", "goal"])
