"""Runs side by side, over the same starts."""

import dataclasses
import json

import pytest
from reaching import SETTINGS

from vlac_gym.cli import main
from vlac_gym.errors import ConfigError
from vlac_gym.evaluation.compare import compare
from vlac_gym.report_card.names import HEADLINES

STEADY = dataclasses.replace(SETTINGS, task_ids=(0, 4), episodes_per_task=6)


def steady(speed: float):
    return dataclasses.replace(STEADY, policy=f"reaching:SteadyChunks?speed={speed}")


@pytest.fixture
def slow_and_fast(run_eval):
    """Task 0 needs 1.0 to 3.5 and task 4 2.0 to 4.5; 0.25 a step reaches 3.0, and 0.5 reaches 6.0."""
    return run_eval("slow", steady(0.25))[1].path, run_eval("fast", steady(0.5))[1].path


def test_pairs_count_the_starts_that_only_one_solves(slow_and_fast):
    content = compare(slow_and_fast)
    assert [run["success_rate"]["value"] for run in content["runs"]] == [pytest.approx(8 / 12), 1.0]
    (pair,) = content["pairs"]
    assert (pair["first"], pair["second"], pair["only_first"], pair["only_second"]) == ("A", "B", 0, 4)
    assert pair["difference"]["value"] == pytest.approx(4 / 12)
    assert pair["p_value"] == pytest.approx(2 / 16)  # four of four to one side, twice
    assert pair["same_seeds"]
    assert content["settings"] == {}
    tasks = {row["task_id"]: row["pairs"]["B"] for row in content["tasks"]}
    assert (tasks[0]["only_second"], tasks[4]["only_second"]) == (1, 3)
    assert tasks[4]["p_value"] == pytest.approx(2 / 8)


def test_the_command_writes_both_files_and_says_what_it_found(slow_and_fast, tmp_path, capsys):
    slow, fast = slow_and_fast
    out = tmp_path / "comparison"
    assert main(["compare", str(slow), str(fast), str(slow), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "B - A: +33.3 points" in printed
    assert "C - A: +0.0 points" in printed
    content = json.loads((out / "compare.json").read_text())
    assert [pair["second"] for pair in content["pairs"]] == ["B", "C"]
    page = (out / "index.html").read_text()
    assert "reaching:SteadyChunks?speed=0.5" in page
    assert "+33.3" in page
    assert "0.125" in page


def test_what_differs_between_the_runs_is_said(run_eval, slow_and_fast):
    other = run_eval("other", dataclasses.replace(steady(0.25), seed=9, max_episode_steps=7))[1].path
    content = compare([slow_and_fast[0], other])
    assert content["settings"] == {
        "max_episode_steps": {"A": None, "B": 7},
        "seed": {"A": 3, "B": 9},
    }
    assert not content["pairs"][0]["same_seeds"]


def test_only_common_starts_are_paired_and_none_at_all_is_refused(run_eval, slow_and_fast):
    part = run_eval("part", dataclasses.replace(steady(0.5), task_ids=(4,), episodes_per_task=2))[1].path
    assert compare([slow_and_fast[0], part])["pairs"][0]["difference"]["n"] == 2
    others = run_eval("others", dataclasses.replace(steady(0.5), task_ids=(7,)))[1].path
    with pytest.raises(ConfigError, match="common starts, got none in"):
        compare([slow_and_fast[0], others])
    suite = run_eval("suite", dataclasses.replace(steady(0.5), task_suite="libero_object"))[1].path
    with pytest.raises(ConfigError, match=r"of one suite.*A: libero_spatial, B: libero_object"):
        compare([slow_and_fast[0], suite])


def test_cards_stand_side_by_side(tmp_path, slow_and_fast):
    estimate = {"value": 0.25, "low": 0.1, "high": 0.5, "n": 8, "interval": "wilson", "reason": ""}
    for name in ("one", "two"):
        card = {"critic": {"spec": name}, "headline": dict.fromkeys(HEADLINES, estimate)}
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").write_text(json.dumps(card))
    content = compare([tmp_path / "one", tmp_path / "two" / "card.json"])
    assert [(card["name"], card["critic"]) for card in content["cards"]] == [("A", "one"), ("B", "two")]
    assert (
        main(["compare", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "out")]) == 0
    )
    assert "25.0% (10.0% … 50.0%)" in (tmp_path / "out" / "index.html").read_text()


def test_what_is_neither_is_refused(tmp_path, slow_and_fast):
    with pytest.raises(ConfigError, match="two or more runs or cards to compare, got 1"):
        compare(slow_and_fast[:1])
    with pytest.raises(ConfigError, match=r"folder of a vlac-gym eval, with settings.json in it"):
        compare([slow_and_fast[0], tmp_path])
    (tmp_path / "card.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"card.json is not a report card"):
        compare([slow_and_fast[0], tmp_path])
