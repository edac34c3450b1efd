"""Evaluations end to end in an env without physics: numbers, files, and that nothing but the settings changes them."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reaching import SETTINGS, SteadyChunks

from vlac_gym.critic.oracle import OracleCritic
from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.errors import ConfigError, CriticTimeoutError
from vlac_gym.evaluation.folder import EpisodeRecord, EvalFolder, read_run
from vlac_gym.evaluation.starts import PlannedEpisode

CHUNKS = dataclasses.replace(
    SETTINGS, policy="reaching:SteadyChunks?speed=0.25", task_ids=(0, 4), episodes_per_task=4
)


def test_results_do_not_depend_on_how_many_envs_play(run_eval):
    _, one = run_eval("one")
    _, four = run_eval("four", num_envs=4)
    _, more = run_eval("more", num_envs=30)
    assert len(one.records) == 18
    assert one.records == four.records == more.records
    # Speeds are from the seeds: not all episodes of a state take as long.
    assert len({record.steps for record in one.records}) > 4
    _, other = run_eval("other", dataclasses.replace(SETTINGS, seed=4))
    assert [r.steps for r in other.records] != [r.steps for r in one.records]


def test_numbers_of_a_steady_policy_by_hand(run_eval):
    # 0.25 a step for 12 steps reaches 3.0. Goals: task 0: 1, 1.5, 2, 2.5; task 4: 2, 2.5, 3, 3.5.
    results, folder = run_eval("run", CHUNKS, num_envs=3)
    assert [(r.task_id, r.episode, r.success, r.steps) for r in folder.records] == [
        *[(0, 0, True, 4), (0, 1, True, 6), (0, 2, True, 8), (0, 3, True, 10)],
        *[(4, 0, True, 8), (4, 1, True, 10), (4, 2, True, 12), (4, 3, False, 12)],
    ]
    assert results["status"] == "complete"
    assert results["suite"]["successes"] == 7
    assert results["suite"]["mean_steps"] == pytest.approx(70 / 8)
    assert results["suite"]["mean_steps_of_successes"] == pytest.approx(58 / 7)
    task = results["tasks"][1]
    assert (task["task"], task["successes"], task["episodes"]) == ("reach for task 4", 3, 4)
    # Wilson of 3 in 4.
    assert task["success_rate"]["low"] == pytest.approx(0.300642, abs=1e-6)
    assert task["success_rate"]["high"] == pytest.approx(0.954413, abs=1e-6)
    rows = list(csv.DictReader((folder.path / "tasks.csv").read_text().splitlines()))
    assert [(row["task_id"], row["successes"]) for row in rows] == [("0", "4"), ("4", "3"), ("all", "7")]
    episodes = list(csv.DictReader((folder.path / "episodes.csv").read_text().splitlines()))
    assert [row["success"] for row in episodes] == list("11111110")
    assert json.loads((folder.path / "results.json").read_text()) == results


def test_a_chunk_policy_is_asked_for_all_envs_that_wait_at_once_and_closed(run_eval):
    policy = SteadyChunks(0.25)
    run_eval("run", CHUNKS, num_envs=8, policy=policy)
    # 8 episodes side by side, of 4, 6, 8, 10, 8, 10, 12 and 12 steps in chunks of 3.
    assert policy.asked == [8, 8, 6, 4, -1]


def test_a_privileged_policy_acts_in_the_env_and_sees_nothing(run_eval):
    # Goals 1.0 and 1.5 at 0.5 a step.
    settings = dataclasses.replace(SETTINGS, policy="reaching:GoalReader", task_ids=(0,), episodes_per_task=2)
    _, folder = run_eval("run", settings, num_envs=2)
    assert [(r.success, r.steps) for r in folder.records] == [(True, 2), (True, 3)]


def test_an_episode_that_is_lost_three_times_is_in_no_rate(run_eval):
    results, folder = run_eval("run", CHUNKS, env={"fails_at": (4, 1)}, num_envs=2)
    lost = [r for r in folder.records if r.lost is not None]
    assert [(r.task_id, r.episode, r.success, r.lost) for r in lost] == [
        (4, 1, None, "the physics became unstable")
    ]
    assert (results["suite"]["episodes"], results["suite"]["lost"], results["suite"]["successes"]) == (
        7,
        1,
        6,
    )
    assert "1 lost with worker or simulator" in (folder.path / "index.html").read_text()


def test_a_run_goes_on_where_it_was_cut_and_gives_the_same(run_eval):
    _, whole = run_eval("whole", num_envs=2)
    seen = []

    def cut(done, total):
        seen.append((done, total))
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_eval("cut", num_envs=2, on_progress=cut)
    path = whole.path.parent / "cut"
    assert json.loads((path / "results.json").read_text())["status"] == "partial"
    assert len(read_run(path).records) == 7
    _, rest = run_eval("cut", num_envs=3, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (18, 18)
    assert rest.records == whole.records
    assert (path / "tasks.csv").read_text() == (whole.path / "tasks.csv").read_text()
    run_eval("cut", on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (18, 18)
    assert len((path / "episodes.jsonl").read_text().splitlines()) == 18
    with pytest.raises(ConfigError, match="with other settings: seed was 3, is 5"):
        EvalFolder(path, vars(dataclasses.replace(SETTINGS, seed=5)))
    with pytest.raises(ConfigError, match="Episode 0 of task 0 is recorded"):
        rest.add(rest.records[0])


def test_a_run_of_before_there_was_a_first_episode_goes_on_as_one_from_the_first(tmp_path):
    EvalFolder(tmp_path, {key: value for key, value in vars(SETTINGS).items() if key != "first_episode"})
    assert read_run(tmp_path).settings["first_episode"] == 0
    EvalFolder(tmp_path, vars(SETTINGS))
    with pytest.raises(ConfigError, match="with other settings: first_episode was 0, is 2"):
        EvalFolder(tmp_path, vars(dataclasses.replace(SETTINGS, first_episode=2)))


CHILD = """
import sys
from functools import partial
from pathlib import Path
from reaching import SETTINGS, ReachingEnv
from vlac_gym.evaluation.folder import EvalFolder
from vlac_gym.evaluation.run import evaluate

if __name__ == "__main__":
    folder = EvalFolder(Path(sys.argv[1]), vars(SETTINGS))
    evaluate(SETTINGS, folder, num_envs=2, env_fn=partial(ReachingEnv, step_s=0.02))
"""


def test_a_killed_process_loses_no_finished_episode_and_repeats_none(run_eval, tmp_path):
    _, whole = run_eval("whole")
    path = tmp_path / "killed"
    path.mkdir()
    root = Path(__file__).parents[3]
    (tmp_path / "child.py").write_text(CHILD)
    child = subprocess.Popen(
        [sys.executable, str(tmp_path / "child.py"), str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests" / "support")])},
    )
    lines = path / "episodes.jsonl"
    deadline = time.monotonic() + 120
    while not (lines.exists() and len(lines.read_text().splitlines()) >= 4):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    finished = read_run(path).records
    assert 4 <= len(finished) < 18
    before = lines.read_text()
    _, rest = run_eval("killed")
    assert lines.read_text().startswith(before)
    assert rest.records == whole.records
    assert len(lines.read_text().splitlines()) == 18


def test_half_a_line_is_no_episode_and_is_not_gone_on_with(run_eval):
    _, whole = run_eval("run", CHUNKS)
    lines = whole.path / "episodes.jsonl"
    text = lines.read_text()
    for end in (len(text) - 20, 30):  # in the last line, and in the first
        lines.write_text(text[:end])
        assert len(read_run(whole.path).records) == text[:end].count("\n")
        _, rest = run_eval("run", CHUNKS)
        assert rest.records == whole.records
        assert sorted(lines.read_text().splitlines()) == sorted(text.splitlines())


def test_an_episode_is_added_without_a_look_at_those_before_it(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(PlannedEpisode, "__eq__", lambda self, other: not compared.append(other))
    folder = EvalFolder(tmp_path, {})
    folder.add(EpisodeRecord(0, 0, 0, 0, "reach", True, 5))
    file = (tmp_path / "episodes.jsonl").stat().st_ino
    for episode in range(1, 50):
        folder.add(EpisodeRecord(0, episode, 0, episode, "reach", True, 5))
    assert (len(folder), compared) == (50, [])
    assert (tmp_path / "episodes.jsonl").stat().st_ino == file  # appended to, not written anew


class Page(HTMLParser):
    """Cells of table rows, and names of videos; fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.videos: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "video":
            self.videos.append(dict(attrs)["src"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if any(tag in self.open for tag in ("td", "th")):
            self.rows[-1][-1] += data.strip()


@pytest.mark.parametrize("num_envs", [1, 8])
def test_videos_are_of_failures_first_whatever_ended_first(run_eval, num_envs):
    settings = dataclasses.replace(CHUNKS, task_ids=(0, 4), episodes_per_task=6)
    _, folder = run_eval("run", settings, num_envs=num_envs, videos_per_task=2)
    # Task 0 fails from goal 3.5 on (episode 5); task 4 from episode 3 on.
    assert [r.episode for r in folder.records if not r.success] == [5, 3, 4, 5]
    kept = sorted(path.name for path in (folder.path / "videos").iterdir())
    assert kept == [
        *("task-00-episode-000.mp4", "task-00-episode-005.mp4"),
        *("task-04-episode-003.mp4", "task-04-episode-004.mp4"),
    ]
    page = Page((folder.path / "index.html").read_text())
    assert page.videos == [
        *("videos/task-00-episode-005.mp4", "videos/task-04-episode-003.mp4"),
        *("videos/task-04-episode-004.mp4", "videos/task-00-episode-000.mp4"),
    ]
    assert page.rows[2][:4] == ["4", "reach for task 4", "3 / 6", "50.0%"]
    assert page.rows[3][1:4] == ["libero_spatial", "8 / 12", "66.7%"]


def test_a_critic_is_asked_beside_it_and_changes_nothing(run_eval):
    _, plain = run_eval("plain", CHUNKS)
    settings = dataclasses.replace(CHUNKS, critic="oracle", critic_interval=4)
    results, folder = run_eval("audited", settings, critic=OracleCritic(), num_envs=2)
    assert [(r.success, r.steps) for r in folder.records] == [(r.success, r.steps) for r in plain.records]
    # Looks are after every chunk of 3 steps, kept from 4 steps on: 0, 6, 10 of an episode of 10 steps.
    assert folder.records[3].critic == {
        "frames": 3,
        "success_prob_last": 1.0,
        "success_prob_max": 1.0,
        "done_step": 10,
        "error": None,
    }
    assert folder.records[7].critic["done_step"] is None
    assert results["critic"]["false_positive_rate"]["value"] == 0.0
    assert results["critic"]["false_negative_rate"]["value"] == 0.0
    assert plain.records[0].critic is None


def test_a_critic_that_fails_is_told_and_ends_nothing(run_eval):
    settings = dataclasses.replace(CHUNKS, task_ids=(4,), critic="scripted:0.95", critic_interval=100)
    answers = [0.2, 0.95, CriticTimeoutError("no reply"), 0.3, 0.3, 0.95, 0.95]
    results, folder = run_eval("run", settings, critic=ScriptedCritic(answers))
    assert [r.critic["done_step"] for r in folder.records] == [8, None, None, 0]
    assert folder.records[1].critic["error"] == "no reply"
    # Success of 8 steps is found, that of 12 is missed; the failure counts as done.
    assert (results["critic"]["failures"], results["critic"]["false_negative_rate"]["value"]) == (1, 0.5)
    assert results["critic"]["false_positive_rate"]["value"] == 1.0
