"""Ratios, parts that hold a row, limits and tables, with numbers worked by hand."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from benchmark_scripts import load_benchmark

ROW = {
    "way": "ready", "envs": 64, "cameras": 2, "chunk": 8, "critic_name": "nano", "niceness": 5, "cores": 16,
    "looked_every": 8, "steps_per_s": 800.0, "busy": 0.8, "cpu_ms_per_step": 16.0, "main": 0.25, "critic": 0.5,
    "frames_per_call": 10.0, "critic_ms": 20.0,
}  # fmt: skip
BEFORE = {"steps_per_s": 900.0, "busy": 1.0, "cpu_ms_per_step": 15.0}
AFTER = {"steps_per_s": 1100.0, "busy": 0.9, "cpu_ms_per_step": 13.0}


@pytest.fixture(scope="module")
def table() -> ModuleType:
    return load_benchmark("scaling_table")


def alone(chunk: int, **numbers: Any) -> dict[str, Any]:
    line = {
        "way": "independent",
        "envs": 16,
        "cameras": 2,
        "chunk": chunk,
        "critic_name": "none",
        "cores": 16,
    }
    return line | numbers


def test_a_ratio_is_to_the_mean_of_both_baselines(table: ModuleType) -> None:
    row = table.compared(ROW, [BEFORE, AFTER])
    assert row["ratio"] == pytest.approx(0.8)
    assert row["base_rates"] == [900.0, 1100.0]
    assert (row["base_busy"], row["base_cpu_ms_per_step"]) == pytest.approx((0.95, 14.0))


@pytest.mark.parametrize(
    ("busy", "ms", "critic", "part"),
    [
        (0.95, 20.0, 0.9, "longer steps"),  # idle 0, longer 0.3, whatever the critic does
        (0.76, 14.0, 0.11, "critic"),  # idle 0.2, of which calls may be more than half
        (0.76, 14.0, 0.09, "idle workers"),
        (0.76, 14.0, None, "idle workers"),
    ],
)
def test_what_holds_a_row(table: ModuleType, busy: float, ms: float, critic: float | None, part: str) -> None:
    row = {"ratio": 0.8, "busy": busy, "base_busy": 0.95, "cpu_ms_per_step": ms, "base_cpu_ms_per_step": 14.0}
    assert table.holds(row if critic is None else row | {"critic": critic}) == part


def test_nothing_holds_a_row_that_keeps_all(table: ModuleType) -> None:
    row = {"busy": 0.5, "base_busy": 0.9, "cpu_ms_per_step": 30.0, "base_cpu_ms_per_step": 14.0}
    assert table.holds(row | {"ratio": 0.996}) == "nothing"
    assert table.holds(row | {"ratio": 0.994}) == "longer steps"


def test_limits_follow_from_the_rows_own_numbers(table: ModuleType) -> None:
    """16 cores at 16 ms; calls of 10 frames in 20 ms, under way half of the time; 300 looks/s, one per 8 steps."""
    assert table.limits(ROW, 300.0) == pytest.approx(
        {"workers": 1000.0, "critic": 1600.0, "pictures": 2400.0}
    )


def test_parts_that_were_not_measured_limit_nothing(table: ModuleType) -> None:
    assert table.limits(ROW | {"critic": 0.0, "frames_per_call": 0.0, "critic_ms": 0.0}, None) == {
        "workers": 1000.0
    }
    assert table.limits(ROW | {"critic": 0.004, "critic_ms": 0.01}, None) == {"workers": 1000.0}


LINES = [
    alone(8, **BEFORE), alone(8, **AFTER), alone(1, steps_per_s=290.0), alone(1, steps_per_s=310.0),
    alone(1, steps_per_s=999.0) | {"cameras": 1},
]  # fmt: skip
EXPECTED = """\
| cameras | envs | chunk | critic | 16 processes alone, before and after | `ready` | `sync` |
|---|---|---|---|---|---|---|
| 2 | 64 | 8 | nano | 900, 1,100 | 800 (0.80) | 400 (0.40) |

| row | ratio | held by | busy (alone) | ms/step (alone) | main | critic | ms a call | batch | \
limit: workers | limit: critic | limit: pictures |
|---|---|---|---|---|---|---|---|---|---|---|---|
| 2 cam, 64 envs, chunk 8, nano, ready | 0.80 | critic | 0.80 (0.95) | 16.0 (14.0) | 0.25 | 0.50 | 20.0 | 10 | \
1,000 | 1,600 | 2,400 |
| 2 cam, 64 envs, chunk 8, nano, sync (compiled 3 graphs) | 0.40 | longer steps | 0.80 (0.95) | 32.0 (14.0) | 0.25 | \
 |  |  | 500 |  | 2,400 |
"""


def test_the_tables(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two files; cells of what a row lacks are empty."""
    sync = {key: value for key, value in ROW.items() if key not in ("critic", "frames_per_call", "critic_ms")}
    sync |= {"way": "sync", "steps_per_s": 400.0, "cpu_ms_per_step": 32.0, "compiled": 3}
    rows = [table.compared(row, [BEFORE, AFTER]) for row in (ROW, sync)]
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file, lines in zip(files, (LINES, rows), strict=True):
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(sys, "argv", ["scaling_table.py", *map(str, files)])
    table.main()
    assert capsys.readouterr().out == EXPECTED


def test_rows_of_several_nicenesses_are_told_apart_and_older_rows_had_none(table: ModuleType) -> None:
    older = {key: value for key, value in ROW.items() if key != "niceness"}
    rows = [table.compared(row, [BEFORE, AFTER]) for row in (ROW, older | {"steps_per_s": 400.0})]
    rates, profiles = (part.splitlines() for part in table.report(rows).split("\n\n"))
    assert rates[0].startswith("| cameras | envs | chunk | critic | niceness | 16 processes alone,")
    assert rates[2:] == [
        "| 2 | 64 | 8 | nano | 5 | 900, 1,100 | 800 (0.80) |",
        "| 2 | 64 | 8 | nano | 0 | 900, 1,100 | 400 (0.40) |",
    ]
    assert [row.split(" | ")[0] for row in profiles[2:]] == [
        "| 2 cam, 64 envs, chunk 8, nano, ready, niceness 5",
        "| 2 cam, 64 envs, chunk 8, nano, ready, niceness 0",
    ]
    assert "niceness" not in table.report(rows[1:])
