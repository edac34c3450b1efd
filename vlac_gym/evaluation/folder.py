"""The folder of one evaluation: `EvalFolder`, `EpisodeRecord`, `new_folder`, `read_run`."""

__all__ = ["EVAL_FILES", "EpisodeRecord", "EvalFolder", "EvalRun", "new_folder", "read_run"]

import dataclasses
import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlac_gym import __version__
from vlac_gym.errors import ConfigError
from vlac_gym.evaluation.starts import EpisodeStart
from vlac_gym.files.atomic import append_text, write_json

EVAL_FILES = (
    "settings.json",
    "episodes.jsonl",
    "results.json",
    "tasks.csv",
    "episodes.csv",
    "index.html",
    "videos",
)
"""Names of all that such a folder holds."""

_FORMAT = 1


@dataclass(frozen=True)
class EpisodeRecord:
    """One finished episode, one line of `episodes.jsonl`.

    Attributes:
        task_id: The task.
        episode: Number of the episode in its task.
        init_state_id: The official initial state.
        seed: Of env and policy.
        task: The instruction.
        success: The simulator's verdict; None if the episode is lost.
        steps: Executed env steps.
        lost: Why there is no verdict.
        critic: What an audited critic said; None if none was asked.
    """

    task_id: int
    episode: int
    init_state_id: int
    seed: int
    task: str
    success: bool | None
    steps: int
    lost: str | None = None
    critic: dict[str, Any] | None = None

    @property
    def start(self) -> EpisodeStart:
        """Where it began."""
        return EpisodeStart(self.task_id, self.episode, self.init_state_id, self.seed)

    @property
    def video(self) -> str:
        """Name of its video, if there is one."""
        return f"videos/task-{self.task_id:02d}-episode-{self.episode:03d}.mp4"


@dataclass(frozen=True)
class EvalRun:
    """What a folder holds.

    Attributes:
        path: The folder.
        settings: Of the run.
        records: Finished episodes in the order of tasks and episodes.
    """

    path: Path
    settings: Mapping[str, Any]
    records: tuple[EpisodeRecord, ...]


class EvalFolder:
    """The files of a run that is under way.

    An episode's line is appended whole, when all that belongs to it is written: a run that is killed at any moment
    knows each episode that it had finished, and no other.

    Args:
        path: An empty folder, or that of a run with the same settings.
        settings: Of the run; JSON-serialisable.

    Raises:
        ConfigError: It holds a run with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings)))
        if (path / "settings.json").exists():
            before = read_run(path)
            _check_same(path, before.settings, self.settings)
            self._records = list(before.records)
        else:
            self._records = []
            content = {"format": _FORMAT, "vlac_gym": __version__, "settings": self.settings}
            write_json(path / "settings.json", content)
        (path / "videos").mkdir(exist_ok=True)

    @property
    def records(self) -> list[EpisodeRecord]:
        """Finished episodes in the order of tasks and episodes, however they ended."""
        return sorted(self._records, key=lambda r: (r.task_id, r.episode))

    def add(self, record: EpisodeRecord) -> None:
        """Appends a finished episode.

        Raises:
            ConfigError: It is there already.
        """
        if any(other.start == record.start for other in self._records):
            raise ConfigError(
                f"Episode {record.episode} of task {record.task_id} is recorded in {self.path} already."
            )
        line = json.dumps(dataclasses.asdict(record), ensure_ascii=False, allow_nan=False)
        append_text(self.path / "episodes.jsonl", line + "\n")
        self._records.append(record)


def new_folder(runs: Path, name: str) -> Path:
    """A name in `runs` that no other run has: the local time and `name`; makes nothing."""
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, 1000):
        path = runs / (f"{stamp}_{name}" if number == 1 else f"{stamp}_{name}-{number}")
        if not path.exists():
            return path
    raise ConfigError(f"{runs} holds 1000 runs of this second. Choose another --runs.")


def read_run(path: Path) -> EvalRun:
    """Reads the folder of a run, finished or not.

    Raises:
        ConfigError: It is none, or of another format.
    """
    file = path / "settings.json"
    if not file.is_file():
        raise ConfigError(f"Expected the folder of a vlac-gym eval, with settings.json in it, got {path}.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ConfigError(f"Expected {file} in format {_FORMAT}, got {content['format']}.")
        lines = path / "episodes.jsonl"
        text = lines.read_text(encoding="utf-8") if lines.exists() else ""
        records = [EpisodeRecord(**json.loads(line)) for line in text.splitlines()]
        settings: dict[str, Any] = content["settings"]
    except (KeyError, TypeError, json.JSONDecodeError) as e:
        raise ConfigError(f"{path} is not the folder of a vlac-gym eval: {e!r}.") from e
    return EvalRun(path, settings, tuple(sorted(records, key=lambda r: (r.task_id, r.episode))))


def _check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    keys = sorted(before.keys() | now.keys())
    changed = [f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in keys if before.get(k) != now.get(k)]
    if changed:
        raise ConfigError(f"Can't continue the run in {path} with other settings: {'; '.join(changed)}.")
