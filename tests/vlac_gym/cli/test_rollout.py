import json

import gymnasium as gym
import numpy as np
import pytest
from critic_process import CriticProcess

from vlac_gym.cli import main, rollout
from vlac_gym.critic.oracle import OracleCritic
from vlac_gym.errors import CriticTimeoutError
from vlac_gym.frames.files import read_frames
from vlac_gym.types import CriticInfo


@pytest.fixture(autouse=True)
def _torch_keeps_its_threads(monkeypatch):
    """The rollouts here run in this process, whose other tests want torch as it is."""
    monkeypatch.setattr(rollout, "limit_torch_threads", lambda count, **facts: None)


def _rollout(out, *more: str) -> int:
    base = ["rollout", "--out", str(out), "--policy", "zero", "--max-episode-steps", "6", "--no-video"]
    return main([*base, *more])


def _summary(out):
    return json.loads((out / "summary.json").read_text())


def _files(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_train_episode_ends_when_the_oracle_says_done(scripted_libero, tmp_path):
    assert _rollout(tmp_path / "run") == 0

    summary = _summary(tmp_path / "run")
    (episode,) = summary["episodes"]
    assert (summary["status"], summary["metrics"]["env/success_rate"]) == ("complete", 1.0)
    assert (episode["steps"], episode["return"], episode["terminated"], episode["truncated"]) == (
        4,
        1.0,
        True,
        False,
    )
    assert (episode["success"], episode["critic_done_step"], episode["sim_success_step"]) == (True, 4, 4)
    assert (episode["video"], episode["plot"]) == (None, "episode-000.png")
    assert episode["frames"] == "episode-000.raw.mp4"
    assert episode["critic"]["is_privileged"] is True
    assert episode["critic"]["calls"] == 4  # the plot's value curve is not a call of the reward
    assert episode["critic"]["values_for"] == "plot"
    assert episode["critic"]["values"] == [0.0, 1.0]
    assert episode["critic"]["value_frame_steps"] == [0, 4]


def test_kept_frames_are_the_very_pictures_that_the_critic_saw(scripted_libero, tmp_path, monkeypatch):
    seen = []
    answer = OracleCritic.success_prob

    def watch(self, frames, tasks):
        seen.extend(frame.copy() for frame in frames)
        return answer(self, frames, tasks)

    monkeypatch.setattr(OracleCritic, "success_prob", watch)
    assert _rollout(tmp_path) == 0
    kept = read_frames(tmp_path / "episode-000.raw.mp4")
    assert (len(kept.frames), kept.fps) == (5, 20.0)
    np.testing.assert_array_equal(kept.frames[1:], seen)
    assert _rollout(tmp_path, "--resume", "--episodes", "2", "--no-frames") == 0
    assert [e["frames"] for e in _summary(tmp_path)["episodes"]] == ["episode-000.raw.mp4", None]
    assert not (tmp_path / "episode-001.raw.mp4").exists()


@pytest.mark.parametrize(("more", "cameras"), [((), ("agentview",)), (("--wrist",), ("agentview", "wrist"))])
def test_the_wrist_camera_is_rendered_only_where_it_is_asked_for(scripted_libero, tmp_path, more, cameras):
    assert _rollout(tmp_path, *more) == 0
    assert gym.spec(rollout.LIBERO_ENV_ID).entry_point.cameras == cameras


def test_served_critic_is_recorded_by_the_name_that_its_server_gives(scripted_libero, tmp_path, capsys):
    server = CriticProcess(tmp_path / "answers.jsonl")
    try:
        assert _rollout(tmp_path / "run", "--critic", server.url) == 0
    finally:
        server.close()

    facts = _summary(tmp_path / "run")["critic"]
    assert (facts["name"], facts["title"]) == ("pixels", f"pixels at {server.url}")
    assert facts["fingerprint"] == CriticInfo("pixels").fingerprint
    assert f"Critic pixels at {server.url}: " in capsys.readouterr().out


def test_arguments_and_folder_are_checked_before_the_critic_is_made(
    scripted_libero, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(rollout, "make_critic", lambda spec: pytest.fail("the critic was made"))
    assert _rollout(tmp_path / "run", "--done-threshold", "2") == 2
    assert _rollout(tmp_path / "run", "--calibration", str(tmp_path / "absent.json")) == 2
    (tmp_path / "notes.txt").touch()
    assert _rollout(tmp_path) == 2
    assert "new or empty folder for --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_value_curve_can_be_left_unasked(scripted_libero, tmp_path):
    assert _rollout(tmp_path, "--no-plot-values") == 0
    assert _summary(tmp_path)["episodes"][0]["critic"]["values"] == []


def test_missed_success_is_paid_the_value_at_the_limit(scripted_libero, tmp_path):
    assert _rollout(tmp_path, "--critic", "noisy_oracle:tpr=0", "--value-stride", "3") == 0

    (episode,) = _summary(tmp_path)["episodes"]
    assert (episode["steps"], episode["truncated"], episode["return"]) == (6, True, 1.0)
    assert (episode["success"], episode["critic_done_step"]) == (True, None)
    assert (episode["critic"]["values_for"], episode["critic"]["stopped_by"]) == ("reward", "step_limit")
    assert episode["critic"]["values"] == pytest.approx([0.0, 0.8, 1.0])
    assert _summary(tmp_path)["metrics"]["critic/false_negative_rate"] == 1.0


def test_eval_mode_reports_the_simulator_and_calls_no_critic(scripted_libero, tmp_path, monkeypatch):
    def forbidden(self, *args, **kwargs):
        raise AssertionError("the critic was called in eval mode")

    for method in ("success_prob", "progress", "value"):
        monkeypatch.setattr(OracleCritic, method, forbidden)
    assert _rollout(tmp_path, "--mode", "eval") == 0

    (episode,) = _summary(tmp_path)["episodes"]
    assert (episode["steps"], episode["return"], episode["success"]) == (4, 1.0, True)
    assert (episode["critic"]["calls"], episode["critic"]["is_privileged"]) == (0, True)


def test_episodes_take_seeds_and_init_states_in_turn(scripted_libero, tmp_path):
    assert _rollout(tmp_path, "--episodes", "3", "--seed", "7") == 0

    assert scripted_libero() == [
        {"seed": 7, "init_state_id": 0},
        {"seed": 8, "init_state_id": 1},
        {"seed": 9, "init_state_id": 2},
    ]
    episodes = _summary(tmp_path)["episodes"]
    assert [(e["episode"], e["seed"], e["init_state_id"]) for e in episodes] == [
        (0, 7, 0),
        (1, 8, 1),
        (2, 9, 2),
    ]


def test_given_init_state_is_used_by_every_episode(scripted_libero, tmp_path):
    assert _rollout(tmp_path, "--episodes", "2", "--init-state-id", "5") == 0
    assert [call["init_state_id"] for call in scripted_libero()] == [5, 5]


def test_recorded_run_is_refused_then_resumed(scripted_libero, tmp_path, capsys):
    assert _rollout(tmp_path) == 0
    before = _files(tmp_path)

    assert _rollout(tmp_path) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert _files(tmp_path) == before

    assert _rollout(tmp_path, "--episodes", "2", "--resume") == 0
    assert [e["episode"] for e in _summary(tmp_path)["episodes"]] == [0, 1]
    assert [call["seed"] for call in scripted_libero()] == [0, 1]


def test_resumed_noise_is_the_noise_of_an_uncut_run(scripted_libero, tmp_path):
    noise = ["--critic", "noisy_oracle:tpr=0.5,fpr=0.3,seed=3"]
    assert _rollout(tmp_path / "whole", "--episodes", "4", *noise) == 0
    assert _rollout(tmp_path / "cut", "--episodes", "2", *noise) == 0
    assert _rollout(tmp_path / "cut", "--episodes", "4", "--resume", *noise) == 0

    steps = [[e["steps"] for e in _summary(tmp_path / name)["episodes"]] for name in ("whole", "cut")]
    assert steps[0] == steps[1]
    assert len(set(steps[0])) > 1


def test_a_server_that_nobody_runs_is_told_before_an_episode_begins(scripted_libero, tmp_path, capsys):
    out = tmp_path / "run"
    assert _rollout(out, "--critic", "http://127.0.0.1:1?max_attempts=1") == 1
    assert "No connection to the critic at http://127.0.0.1:1" in capsys.readouterr().err
    assert not (out / "summary.json").exists()


def test_a_critic_lost_in_the_first_episode_is_counted(scripted_libero, tmp_path, monkeypatch, capsys):
    def late(self, frames, tasks):
        raise CriticTimeoutError("late")

    monkeypatch.setattr(OracleCritic, "success_prob", late)
    assert _rollout(tmp_path) == 1
    assert _summary(tmp_path)["metrics"]["critic/failures"] == 1.0
    assert ": 1 failure." in capsys.readouterr().out


def test_critic_failure_keeps_finished_episodes_and_says_why(scripted_libero, tmp_path, monkeypatch, capsys):
    answer, calls = OracleCritic.success_prob, []

    def fails_in_the_second_episode(self, frames, tasks):
        calls.append(1)
        if len(calls) == 6:
            raise CriticTimeoutError("No reply from critic in 30.0 s.")
        return answer(self, frames, tasks)

    monkeypatch.setattr(OracleCritic, "success_prob", fails_in_the_second_episode)
    assert _rollout(tmp_path, "--episodes", "3") == 1

    summary = _summary(tmp_path)
    assert (summary["status"], summary["error"]) == ("failed", "No reply from critic in 30.0 s.")
    assert summary["metrics"]["critic/failures"] == 1.0
    assert [e["episode"] for e in summary["episodes"]] == [0]
    assert "No reply from critic in 30.0 s." in capsys.readouterr().err
    assert {
        row["episode"] for row in map(json.loads, (tmp_path / "steps.jsonl").read_text().splitlines())
    } == {0}


def test_failing_plot_curve_loses_no_episode(scripted_libero, tmp_path, monkeypatch, capsys):
    def fails(self, frames, task, references=None):
        raise CriticTimeoutError("late")

    monkeypatch.setattr(OracleCritic, "value", fails)
    assert _rollout(tmp_path) == 0

    assert _summary(tmp_path)["episodes"][0]["critic"]["values_for"] == "none"
    assert "no value curve in the plots: late" in capsys.readouterr().err


def test_run_ends_with_a_reading_and_the_paths(scripted_libero, tmp_path, capsys):
    assert _rollout(tmp_path) == 0

    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[4] == "Reading: critic and simulator agree about every episode, in stops and in reward."
    assert "privileged" in lines[3]
    assert [line.split()[0] for line in lines[6:]] == ["frames", "plot", "summary", "page"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--task-suite", "libero_spacial"],
            "Unknown task suite 'libero_spacial'.* Did you mean 'libero_spatial'",
        ),
        (["--task-id", "10"], r"Expected task_id in 0\.\.9 for libero_spatial, got 10"),
        (["--init-state-id", "50"], r"Expected init_state_id in 0\.\.49 .* got 50"),
        (["--policy", "expart"], "Unknown policy 'expart'.* Did you mean 'expert'"),
        (["--critic", "oracel"], "Unknown critic 'oracel'.* Did you mean 'oracle'"),
        (["--critic", "noisy_oracle:tpr=2"], r"tpr in \[0, 1\], got 2"),
        (["--preset", "vlak"], "Unknown preset 'vlak'.* Did you mean 'vlac'"),
        (["--done-threshold", "90"], r"done_threshold in \[0, 1\], got 90"),
        (["--episodes", "0"], "--episodes >= 1"),
        (["--max-episode-steps", "0"], "--max-episode-steps >= 1, got 0"),
        (["--image-size", "1"], "image_size to be a whole number"),
    ],
)
def test_wrong_arguments_give_one_line_and_write_nothing(arguments, message, tmp_path, capsys):
    import re

    out = tmp_path / "run"
    assert main(["rollout", "--out", str(out), "--policy", "zero", *arguments]) == 2

    error = capsys.readouterr().err
    assert re.search(message, error)
    assert len(error.strip().splitlines()) == 1
    assert not out.exists()


def test_missing_video_packages_are_named_before_anything_is_written(tmp_path, monkeypatch, capsys):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "imageio_ffmpeg" else find(name)
    )

    assert _rollout(tmp_path / "run") == 2
    assert 'need imageio_ffmpeg. Run: pip install "vlac-gym[video]"' in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("more", "expected"), [((), (None, True)), (("--torch-threads", "3"), (3, True))])
def test_torch_gets_its_threads_once_the_critic_is_there(
    scripted_libero, tmp_path, monkeypatch, more, expected
):
    calls = []
    monkeypatch.setattr(rollout, "renders_in_software", lambda: True)
    monkeypatch.setattr(
        rollout, "limit_torch_threads", lambda count, **facts: calls.append((count, *facts.values()))
    )
    assert _rollout(tmp_path, *more) == 0
    assert calls == [expected]


def test_fewer_than_one_thread_is_refused(scripted_libero, tmp_path, capsys):
    assert _rollout(tmp_path / "run", "--torch-threads", "0") != 0
    assert "Expected --torch-threads >= 1, got 0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
