"""An evaluation as one offline web page, beside its numbers: `write_results`, `render_run`."""

__all__ = ["percent", "render_run", "write_results"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlac_gym.evaluation.folder import EpisodeRecord
from vlac_gym.evaluation.summary import episodes_csv, summarise, tasks_csv
from vlac_gym.files.atomic import write_json, write_text
from vlac_gym.reporting.rendering import render_template


def write_results(
    path: Path, settings: Mapping[str, Any], records: Sequence[EpisodeRecord], *, planned: int
) -> dict[str, Any]:
    """Writes `results.json`, `tasks.csv`, `episodes.csv` and `index.html`; returns the first's content.

    Args:
        path: The run's folder.
        settings: Of the run.
        records: Finished episodes, in the order of tasks and episodes.
        planned: How many there will be.

    Raises:
        DependencyNotInstalled: jinja2 is missing; the numbers are written.
    """
    results = summarise(settings, records, planned=planned)
    write_json(path / "results.json", results)
    write_text(path / "tasks.csv", tasks_csv(results))
    write_text(path / "episodes.csv", episodes_csv(records))
    filmed = [record for record in records if (path / record.video).exists()]
    write_text(path / "index.html", render_run(results, records, filmed))
    return results


def render_run(
    results: Mapping[str, Any], records: Sequence[EpisodeRecord], filmed: Sequence[EpisodeRecord]
) -> str:
    """HTML of the page; every text is escaped.

    Args:
        results: Content of `results.json`.
        records: Finished episodes.
        filmed: Those of them that have a video, shown with failures first.
    """
    lost = [record for record in records if record.lost is not None]
    shown = sorted(filmed, key=lambda r: (bool(r.success), r.task_id, r.episode))
    return render_template("evaluation.html", results=results, lost=lost, filmed=shown, percent=percent)


def percent(value: float | None) -> str:
    """A share for people, ``"–"`` if there is none."""
    return "–" if value is None else f"{value:.1%}"
