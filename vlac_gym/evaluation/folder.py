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
from vlac_gym.evaluation.starts import PlannedEpisode
from vlac_gym.files.atomic import write_json
from vlac_gym.files.json_lines import append_lines, drop_cut_line, read_lines

EVAL_FILES = (
    "settings.json",
    "episodes.jsonl",
    "results.json",
    "tasks.csv",
    "episodes.csv",
    "index.html",
    "videos",
    "metrics.jsonl",
    "tensorboard",
    "wandb",
)
"""Names of all that such a folder holds."""

_FORMAT = 1
_EPISODES = "episodes.jsonl"
_BEFORE = {"first_episode": 0}
"""Settings that runs of earlier versions lack, with what they were there."""


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
    def planned(self) -> PlannedEpisode:
        """What was planned."""
        return PlannedEpisode(self.task_id, self.episode, self.init_state_id, self.seed)

    @property
    def video(self) -> str:
        """Name of its video, if there is one."""
        return f"videos/task-{self.task_id:02d}-episode-{self.episode:03d}.mp4"


@dataclass(frozen=True)
class EvalRun:
    """What a folder holds.

    Attributes:
        path: The folder.
        settings: Of the run; those that its version lacked as they were there.
        records: Finished episodes in the order of tasks and episodes.
    """

    path: Path
    settings: Mapping[str, Any]
    records: tuple[EpisodeRecord, ...]


class EvalFolder:
    """The files of a run that is under way.

    An episode's line is appended when all that belongs to it is written: a run that is killed at any moment knows each
    episode that it had finished, and no other; half a line is none.

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
            records = before.records
            if (path / _EPISODES).exists():
                drop_cut_line(path / _EPISODES)
        else:
            records = ()
            content = {"format": _FORMAT, "vlac_gym": __version__, "settings": self.settings}
            write_json(path / "settings.json", content)
        self._records = {record.planned: record for record in records}
        (path / "videos").mkdir(exist_ok=True)

    def __contains__(self, planned: PlannedEpisode) -> bool:
        return planned in self._records

    def __len__(self) -> int:
        return len(self._records)

    @property
    def records(self) -> list[EpisodeRecord]:
        """Finished episodes in the order of tasks and episodes, however they ended."""
        return sorted(self._records.values(), key=lambda r: (r.task_id, r.episode))

    def add(self, record: EpisodeRecord) -> None:
        """Appends a finished episode, in a time that does not grow with their number.

        Raises:
            ConfigError: It is there already.
        """
        if record.planned in self._records:
            raise ConfigError(
                f"Episode {record.episode} of task {record.task_id} is recorded in {self.path} already."
            )
        line = json.dumps(dataclasses.asdict(record), ensure_ascii=False, allow_nan=False)
        append_lines(self.path / _EPISODES, [line])
        self._records[record.planned] = record


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
        lines = read_lines(path / _EPISODES) if (path / _EPISODES).exists() else []
        records = [EpisodeRecord(**line) for line in lines]
        settings: dict[str, Any] = {**_BEFORE, **content["settings"]}
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path} is not the folder of a vlac-gym eval: {e!r}.") from e
    return EvalRun(path, settings, tuple(sorted(records, key=lambda r: (r.task_id, r.episode))))


def _check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    now = {**_BEFORE, **now}
    keys = sorted(before.keys() | now.keys())
    changed = [f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in keys if before.get(k) != now.get(k)]
    if changed:
        raise ConfigError(f"Can't continue the run in {path} with other settings: {'; '.join(changed)}.")
