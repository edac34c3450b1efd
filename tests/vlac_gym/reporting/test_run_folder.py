import dataclasses
import json

import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.reporting import run_folder
from vlac_gym.reporting.run_folder import RunFolder
from vlac_gym.types import CriticInfo

RUN = {
    "task_suite": "libero_spatial",
    "task_id": 0,
    "policy": "expert",
    "critic": "oracle",
    "mode": "train",
    "episodes": 2,
    "seed": 0,
}
ORACLE = CriticInfo(name="oracle", is_privileged=True)


def _folder(path, **changes):
    resume = changes.pop("resume", False)
    return RunFolder(path, run={**RUN, **changes}, critic=ORACLE, resume=resume)


def test_each_episode_is_on_disk_as_soon_as_it_is_added(train_trace, tmp_path):
    folder = _folder(tmp_path / "run")
    folder.add_episode(train_trace(num_steps=3), with_video=True, extra={"seed": 7})

    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "running"
    assert summary["metrics"]["env/success_rate"] == 1.0
    (episode,) = summary["episodes"]
    assert (episode["episode"], episode["seed"], episode["steps"]) == (0, 7, 3)
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {"summary.json", "steps.jsonl", "index.html", "episode-000.mp4", "episode-000.png"}
    rows = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert [(row["episode"], row["step"]) for row in rows] == [(0, 1), (0, 2), (0, 3)]


def test_privileged_critic_is_said_to_be_privileged_everywhere(train_trace, tmp_path):
    folder = _folder(tmp_path)
    folder.add_episode(train_trace(), with_video=False, extra={})
    folder.finish("complete")

    assert "privileged" in folder.summary["critic"]["note"]
    assert folder.summary["episodes"][0]["critic"]["is_privileged"] is True
    assert "privileged: it reads the simulator" in (tmp_path / "index.html").read_text()


def test_recorded_episodes_are_never_overwritten(train_trace, tmp_path):
    _folder(tmp_path).add_episode(train_trace(), with_video=False, extra={})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    with pytest.raises(ConfigError, match=r"1 finished episode\(s\), which are never overwritten.*--resume"):
        _folder(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_run_without_finished_episodes_may_start_again(tmp_path):
    _folder(tmp_path)
    assert _folder(tmp_path).num_episodes == 0


def test_resume_continues_after_the_last_whole_episode(train_trace, tmp_path):
    first = _folder(tmp_path)
    first.add_episode(train_trace(num_steps=2), with_video=False, extra={})
    # As if the process was killed between the steps and the summary of episode 1.
    with (tmp_path / "steps.jsonl").open("a") as file:
        file.write('{"episode": 1, "step": 1}\n')

    second = _folder(tmp_path, resume=True, episodes=5)
    assert second.num_episodes == 1
    second.add_episode(train_trace(num_steps=1), with_video=False, extra={})

    rows = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [(row["episode"], row["step"]) for row in rows] == [(0, 1), (0, 2), (1, 1)]
    assert [e["episode"] for e in second.summary["episodes"]] == [0, 1]


def test_resume_refuses_other_settings(train_trace, tmp_path):
    _folder(tmp_path).add_episode(train_trace(), with_video=False, extra={})

    with pytest.raises(ConfigError, match="other settings: critic was 'oracle', is 'nano'; seed was 0, is 1"):
        _folder(tmp_path, resume=True, critic="nano", seed=1)


def test_folders_that_are_not_ours_are_refused(tmp_path):
    (tmp_path / "episode-000.mp4").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"episodes without a summary\.json"):
        _folder(tmp_path)

    (tmp_path / "summary.json").write_text("[1]")
    with pytest.raises(ConfigError, match="is not a summary of a run"):
        _folder(tmp_path)

    with pytest.raises(ConfigError, match="Expected a folder for the run, got the file"):
        _folder(tmp_path / "summary.json")


SERVED = CriticInfo(
    name="transformers",
    model="/checkpoints/vlac-2b",
    prompt_version="vlac-v3",
    device="cuda:0",
    details={"urls": ["http://critic-host:8400"]},
    fingerprint="00c0ffee00c0ffee",
)


def test_served_critic_is_told_from_others_in_summary_plot_and_page(train_trace, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(run_folder, "save_curves_png", lambda trace, path, title: titles.append(title))
    run = {**RUN, "critic": "http://critic-host:8400"}
    folder = RunFolder(tmp_path, run=run, critic=SERVED)
    folder.add_episode(train_trace(is_privileged=False), with_video=False, extra={})
    facts = json.loads((tmp_path / "summary.json").read_text())["critic"]
    assert facts["title"] == "transformers vlac-2b at http://critic-host:8400"
    assert (facts["name"], facts["model"], facts["prompt_version"], facts["fingerprint"]) == (
        "transformers",
        "/checkpoints/vlac-2b",
        "vlac-v3",
        "00c0ffee00c0ffee",
    )
    assert "critic transformers vlac-2b at http://critic-host:8400" in titles[0]
    page = (tmp_path / "index.html").read_text()
    assert "transformers vlac-2b at http://critic-host:8400" in page
    assert "prompts vlac-v3" in page
    assert "fingerprint 00c0ffee00c0ffee" in page


def test_resume_refuses_an_address_where_another_critic_answers_now(train_trace, tmp_path):
    RunFolder(tmp_path, run=RUN, critic=SERVED).add_episode(train_trace(), with_video=False, extra={})
    other = dataclasses.replace(SERVED, model="/checkpoints/vlac-8b", fingerprint="0123456789abcdef")
    with pytest.raises(
        ConfigError, match=r"another critic: it was transformers vlac-2b .*00c0ffee.*0123456789abcdef"
    ):
        RunFolder(tmp_path, run=RUN, critic=other, resume=True)
    assert RunFolder(tmp_path, run=RUN, critic=SERVED, resume=True).num_episodes == 1
