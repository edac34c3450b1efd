"""Two cards side by side: a number falls or rises where it leaves its old interval, on the worse or better side."""

import json
from pathlib import Path
from typing import Any

import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.report_card.comparison import compare_cards, fallen, read_card, write_comparison
from vlac_gym.report_card.names import HEADLINES


def estimate(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 10, "interval": "wilson", "reason": ""}


def card(spec: str, f1: float, misses: float, hover: float | None = None) -> dict[str, Any]:
    headline = {name: estimate(None) for name in HEADLINES}
    headline |= {
        "done_f1_frames": estimate(f1, f1 - 0.05, f1 + 0.05),
        "miss_rate": estimate(misses, misses - 0.05, misses + 0.05),
        "delay_steps_median": estimate(3.0),
    }
    sections: dict[str, Any] = {}
    if hover is not None:
        row = {"wrong_stops": estimate(hover, hover - 0.1, hover + 0.1), "reward_of_failure": estimate(0.5)}
        sections["under_optimisation"] = {"cheats": {"hover": row}}
    return {"critic": {"spec": spec}, "headline": headline, "sections": sections}


def test_a_number_falls_where_it_leaves_its_interval_on_the_worse_side(tmp_path: Path) -> None:
    before, after = card("old", 0.9, 0.1, hover=0.6), card("new", 0.86, 0.2, hover=0.3)
    changes = {change.label: change for change in compare_cards(before, after)}
    verdicts = {label: change.verdict for label, change in changes.items()}
    assert verdicts["F1 of single frames at done_threshold"] == "within its interval"  # 0.86 >= 0.85
    assert verdicts["successful episodes never stopped"] == "fell"  # misses: 0.2 > 0.15
    assert verdicts["wrong stops: scripted cheats, held above its place"] == "rose"  # 0.3 < 0.5
    assert verdicts["median delay of the stop, env steps"] == "not comparable"  # it has no interval
    assert verdicts["reward of failures: scripted cheats, held above its place"] == "not comparable"
    assert [c.label for c in fallen(list(changes.values()))] == ["successful episodes never stopped"]
    better = {c.label: c.verdict for c in compare_cards(after, card("newer", 0.95, 0.1))}
    assert better["F1 of single frames at done_threshold"] == "rose"
    assert better["successful episodes never stopped"] == "rose"
    assert not any(label.startswith("wrong stops") for label in better)  # the newer card was not attacked

    write_comparison(before, after, tmp_path)
    written = json.loads((tmp_path / "comparison.json").read_text())
    assert written["critics"] == {"before": "old", "after": "new"}
    assert [c["verdict"] for c in written["changes"]].count("fell") == 1
    page = (tmp_path / "comparison.html").read_text()
    assert "1 of 10 numbers fell by more than their interval: successful episodes never stopped." in page
    assert '<td class="good">rose</td>' in page


def test_another_file_is_no_card(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text("{}")
    for name in ("card.json", "absent.json"):
        with pytest.raises(ConfigError, match=r"Expected a report card's card\.json"):
            read_card(tmp_path / name)
    (tmp_path / "card.json").write_text(json.dumps(card("old", 0.9, 0.1)))
    assert read_card(tmp_path / "card.json")["critic"]["spec"] == "old"
