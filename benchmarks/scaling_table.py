"""What the lines of vector_scaling.py's `--json` say together: ratios, what holds each row, limits, tables in Markdown.

    python benchmarks/scaling_table.py one_camera.jsonl two_cameras.jsonl

The second table names the part that holds a row: `longer steps`, if env steps take more of the workers' processor time
than the baseline's; else `critic`, if a call was under way for at least half as much of the time as workers were idle
more than the baseline's; else `idle workers`. Its limits are env steps per second, from the row's own numbers:

- workers: all cores busy with steps that take as long as the row's;
- critic: a call under way all the time, with as many frames in as long a call as the row's;
- pictures: as many looks per second as the same run's baseline makes at chunk 1, one per chunk (or per done check).
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]
ALONE = "independent"
LEAST_SHARE = 0.005
"""Of time in calls; of a critic that takes less, no limit can be told."""

COMPARED = ("steps_per_s", "busy", "cpu_ms_per_step")


def mean_of(baselines: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of what rows are compared with."""
    return {key: sum(base[key] for base in baselines) / len(baselines) for key in COMPARED}


def compared(row: Line, baselines: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """A row with its ratio to the mean of the baselines around it, and those."""
    base = mean_of(baselines)
    return dict(row) | {
        "ratio": row["steps_per_s"] / base["steps_per_s"],
        "base_rates": [one["steps_per_s"] for one in baselines],
        "base_busy": base["busy"],
        "base_cpu_ms_per_step": base["cpu_ms_per_step"],
    }


def holds(row: Line) -> str:
    """The part that costs most of what a compared row lacks."""
    if round(row["ratio"], 2) >= 1:
        return "nothing"
    idle = 1 - row["busy"] / row["base_busy"]
    longer = 1 - row["base_cpu_ms_per_step"] / row["cpu_ms_per_step"]
    if longer >= idle:
        return "longer steps"
    return "critic" if row.get("critic", 0.0) >= idle / 2 else "idle workers"


def limits(row: Line, looks_per_s: float | None) -> dict[str, float]:
    """Env steps per second that each part allows at most.

    Args:
        row: A measurement.
        looks_per_s: The baseline's rate at chunk 1, where each step ends with a look; None if not measured.
    """
    found = {"workers": 1e3 * row["cores"] / row["cpu_ms_per_step"]}
    if row.get("critic", 0.0) >= LEAST_SHARE:
        frames_per_s = row["frames_per_call"] / row["critic_ms"] * 1e3
        frames_per_step = row["critic"] * frames_per_s / row["steps_per_s"]
        found["critic"] = frames_per_s / frames_per_step
    if looks_per_s is not None and "looked_every" in row:
        found["pictures"] = looks_per_s * row["looked_every"]
    return found


def niceness_of(row: Line) -> int:
    """The `worker_niceness` of a row; 0 where it says nothing, as rows did while there was none."""
    return int(row.get("niceness", 0))


def report(lines: Iterable[Line]) -> str:
    """The two tables: rates with ratios, ways side by side; and what each row's time went into.

    They tell rows of one `worker_niceness` from those of another, where there are several.
    """
    lines = list(lines)
    alone = [line for line in lines if line["way"] == ALONE]
    rows = [line for line in lines if "ratio" in line]
    return "\n".join([*_rates(rows), "", *_profiles(rows, alone)])


def _rates(rows: Sequence[Line]) -> list[str]:
    ways = list(dict.fromkeys(row["way"] for row in rows))
    cores = rows[0]["cores"] if rows else 0
    places: dict[tuple[Any, ...], dict[str, Line]] = {}
    for row in rows:
        key = (row["cameras"], row["envs"], row["chunk"], row["critic_name"], niceness_of(row))
        places.setdefault(key, {})[row["way"]] = row
    head = ["cameras", "envs", "chunk", "critic", *(["niceness"] if _differ_in_niceness(rows) else [])]
    text = _table([*head, f"{cores} processes alone, before and after", *(f"`{way}`" for way in ways)])
    for key, by_way in places.items():
        bases = dict.fromkeys(rate for row in by_way.values() for rate in row["base_rates"])
        cells = [by_way.get(way) for way in ways]
        rates = [f"{row['steps_per_s']:,.0f} ({row['ratio']:.2f})" if row else "" for row in cells]
        text.append(_row([*key[: len(head)], ", ".join(f"{rate:,.0f}" for rate in bases), *rates]))
    return text


def _profiles(rows: Sequence[Line], alone: Sequence[Line]) -> list[str]:
    text = _table(
        ["row", "ratio", "held by", "busy (alone)", "ms/step (alone)", "main", "critic", "ms a call", "batch"]
        + [f"limit: {part}" for part in ("workers", "critic", "pictures")]
    )
    tells_niceness = _differ_in_niceness(rows)
    for row in rows:
        at_most = limits(row, _looks_per_s(alone, row["cameras"]))
        name = f"{row['cameras']} cam, {row['envs']} envs, chunk {row['chunk']}, {row['critic_name']}, {row['way']}"
        if tells_niceness:
            name += f", niceness {niceness_of(row)}"
        if row.get("compiled"):
            name += f" (compiled {row['compiled']:.0f} graphs)"
        text.append(
            _row(
                [
                    name,
                    f"{row['ratio']:.2f}",
                    holds(row),
                    f"{row['busy']:.2f} ({row['base_busy']:.2f})",
                    f"{row['cpu_ms_per_step']:.1f} ({row['base_cpu_ms_per_step']:.1f})",
                    _number(row, "main", ".2f"),
                    _number(row, "critic", ".2f"),
                    _number(row, "critic_ms", ".1f"),
                    _number(row, "frames_per_call", ".0f"),
                    *(_number(at_most, part, ",.0f") for part in ("workers", "critic", "pictures")),
                ]
            )
        )
    return text


def _differ_in_niceness(rows: Sequence[Line]) -> bool:
    return len({niceness_of(row) for row in rows}) > 1


def _looks_per_s(alone: Sequence[Line], cameras: int) -> float | None:
    rates = [line["steps_per_s"] for line in alone if (line["cameras"], line["chunk"]) == (cameras, 1)]
    return sum(rates) / len(rates) if rates else None


def _number(row: Line, name: str, form: str) -> str:
    return format(row[name], form) if name in row else ""


def _table(head: Sequence[str]) -> list[str]:
    return [_row(head), "|" + "---|" * len(head)]


def _row(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+", help="written by vector_scaling.py --json")
    files = parser.parse_args().files
    print(report(json.loads(line) for file in files for line in file.read_text().splitlines()))


if __name__ == "__main__":
    main()
