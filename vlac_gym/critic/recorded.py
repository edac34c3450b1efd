"""A critic's answers on disk: `RecordedCritic` keeps them, `ReplayedCritic` gives them again without a model.

A record is a JSONL file: a line that describes the critic, then a line for each question with its answer. Frames are
named by `frame_digest`, which tells those of a privileged critic apart by their moment, too.
"""

__all__ = ["RecordedCritic", "ReplayedCritic"]

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vlac_gym.critic.base import (
    BaseCritic,
    Critic,
    check_frames,
    check_same_length,
    check_tasks,
    frame_digest,
)
from vlac_gym.critic.knowledge import parse_knowledge
from vlac_gym.critic.wrapper import CriticWrapper
from vlac_gym.errors import ConfigError, CriticResponseError
from vlac_gym.files.atomic import write_bytes
from vlac_gym.files.json_lines import append_lines, drop_cut_line, read_lines
from vlac_gym.specs.options import read_argument
from vlac_gym.types import CriticInfo, FloatArray, Frame

_FORMAT = "vlac-gym critic record 1"

_Kind = Literal["success_prob", "progress", "value", "value_and_progress"]

_Key = tuple[str, str, tuple[str, ...], tuple[str, ...]]
"""Kind, task, digests of frames and of references."""


class RecordedCritic(CriticWrapper):
    """Writes down every question to a critic and its answer, for `ReplayedCritic`.

    The answers of each call are appended and flushed to the disk before the caller has them; a call that fails leaves
    nothing. A record cut half way, at worst within its last line, is continued after its last whole line. The file
    is made by the first answer. One critic writes one record; not for several threads at once.

    Args:
        critic: Who answers, privileged ones included.
        path: The record, `*.jsonl`; new, or one of the same critic.
        frames: Folder for the frames themselves as ``DIGEST.npy``, each once; None, the default, keeps digests alone.

    Raises:
        ConfigError: The folder of `path` does not exist, or, at the first question, the record is another critic's.
    """

    takes_concurrent_calls = False

    def __init__(self, critic: Critic, path: str | Path, *, frames: str | Path | None = None) -> None:
        self._path = Path(path)
        if not self._path.parent.is_dir() or self._path.is_dir():
            raise ConfigError(f"Expected a file in an existing folder for a critic's record, got {path}.")
        self._frames = None if frames is None else Path(frames)
        self._is_begun = False
        super().__init__(critic)

    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> FloatArray:
        """The inner critic's, recorded frame by frame."""
        self._begin()
        answers = self.critic.success_prob(frames, tasks)
        self._keep("success_prob", tasks, [[frame] for frame in frames], None, answers)
        return answers

    def progress(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> FloatArray:
        """The inner critic's, recorded pair by pair."""
        self._begin()
        answers = self.critic.progress(before, after, tasks, references)
        self._keep("progress", tasks, [list(pair) for pair in zip(before, after)], references, answers)
        return answers

    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        """The inner critic's, recorded as a whole."""
        self._begin()
        answer = self.critic.value(frames, task, references)
        self._keep("value", [task], [frames], references, [answer])
        return answer

    def values(
        self,
        episodes: Sequence[Sequence[Frame]],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> list[FloatArray]:
        """The inner critic's, recorded episode by episode."""
        self._begin()
        answers = self.critic.values(episodes, tasks, references)
        self._keep("value", tasks, episodes, references, answers)
        return answers

    def value_and_progress(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """The inner critic's, recorded as a whole."""
        self._begin()
        values, progress = self.critic.value_and_progress(frames, task, references)
        self._keep("value_and_progress", [task], [frames], references, [[values, progress]])
        return values, progress

    def _begin(self) -> None:
        """Before the first question: whose record the file is, and no half line at its end."""
        if self._is_begun:
            return
        info = self.critic.identify()
        if self._path.exists() and self._path.stat().st_size:
            whole = drop_cut_line(self._path)
            if whole and (known := _read_info(self._path)).fingerprint != info.fingerprint:
                raise ConfigError(
                    f"Expected {self._path} as a record of {info.name!r} (fingerprint {info.fingerprint}), got one of "
                    f"{known.name!r} ({known.fingerprint}). Record to another file."
                )
            self._is_begun = whole > 0
        if not self._is_begun:
            append_lines(self._path, [_line({"format": _FORMAT, "critic": asdict(info)})])
            self._is_begun = True

    def _keep(
        self,
        kind: _Kind,
        tasks: Sequence[str],
        asked: Sequence[Sequence[Frame]],
        references: Sequence[Frame] | None,
        answers: Sequence[Any] | FloatArray,
    ) -> None:
        shown = self._digests(references or ())
        append_lines(
            self._path,
            [
                _line(
                    {
                        "kind": kind,
                        "task": task,
                        "frames": self._digests(frames),
                        "references": shown,
                        "answer": _plain(answer),
                    }
                )
                for task, frames, answer in zip(tasks, asked, answers)
            ],
        )

    def _digests(self, frames: Sequence[Frame]) -> list[str]:
        digests = [frame_digest(frame).hex() for frame in frames]
        if self._frames is not None:
            self._frames.mkdir(parents=True, exist_ok=True)
            for digest, frame in zip(digests, frames):
                if not (file := self._frames / f"{digest}.npy").exists():
                    write_bytes(file, _as_npy(frame))
        return digests


class ReplayedCritic(BaseCritic):
    """Answers from a record, as the recorded critic did; needs no model, server or simulator.

    A question that was asked several times gets its answers in their order, and then the last one again. It describes
    itself as the recorded critic does, fingerprint and privilege included, with the file as ``details["record"]``.

    Args:
        path: What `RecordedCritic` wrote; a last line that was cut is left out.

    Raises:
        ConfigError: There is no such file, or it is no record.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._info = _read_info(self._path)
        self._answers: dict[_Key, list[Any]] = {}
        self._used: dict[_Key, int] = {}
        for line in _whole_lines(self._path)[1:]:
            key = (line["kind"], line["task"], tuple(line["frames"]), tuple(line["references"]))
            self._answers.setdefault(key, []).append(line["answer"])

    @classmethod
    def from_spec(cls, argument: str, **options: Any) -> "ReplayedCritic":
        """Builds `recorded:PATH`."""
        path, options = read_argument(argument, {}, "recorded:PATH", given=options)
        return cls(path, **options)

    @staticmethod
    def check_spec(argument: str) -> None:
        """Raises `ConfigError` unless a path follows `recorded:`, and nothing else; reads no file."""
        read_argument(argument, {}, "recorded:PATH")

    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> FloatArray:
        """As recorded.

        Raises:
            CriticResponseError: A frame was not asked about.
        """
        check_frames(frames)
        check_tasks(tasks)
        check_same_length(frames=frames, tasks=tasks)
        answers = [self._answer("success_prob", task, [frame]) for frame, task in zip(frames, tasks)]
        return np.array(answers, np.float32)

    def progress(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> FloatArray:
        """As recorded; raises as `success_prob`."""
        check_frames(before, "before")
        check_frames(after, "after")
        check_tasks(tasks)
        check_same_length(before=before, after=after, tasks=tasks)
        answers = [
            self._answer("progress", task, pair, references) for *pair, task in zip(before, after, tasks)
        ]
        return np.array(answers, np.float32)

    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        """As recorded; raises as `success_prob`."""
        check_frames(frames)
        check_tasks([task])
        return np.array(self._answer("value", task, frames, references), np.float32)

    def value_and_progress(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """As recorded; raises as `success_prob`."""
        check_frames(frames)
        check_tasks([task])
        values, progress = self._answer("value_and_progress", task, frames, references)
        return np.array(values, np.float32), np.array(progress, np.float32)

    def describe(self) -> CriticInfo:
        """The recorded critic."""
        return replace(self._info, details={**(self._info.details or {}), "record": str(self._path)})

    def _answer(
        self, kind: _Kind, task: str, frames: Sequence[Frame], references: Sequence[Frame] | None = None
    ) -> Any:
        digests = tuple(frame_digest(frame).hex() for frame in frames)
        key = (kind, task, digests, tuple(frame_digest(frame).hex() for frame in references or ()))
        if key not in self._answers:
            named = ", ".join(digests[:3]) + (f", … ({len(digests)} frames)" if len(digests) > 3 else "")
            shown = f" with {len(key[3])} references" if key[3] else ""
            raise CriticResponseError(
                f"No {kind} for the task {task!r} and the frame digests {named}{shown} in {self._path}, which holds "
                f"{len(self._answers)} other questions. Replay what was recorded (seed, actions, rule), or record anew."
            )
        answers, used = self._answers[key], self._used.get(key, 0)
        self._used[key] = used + 1
        return answers[min(used, len(answers) - 1)]


def _as_npy(frame: Frame) -> bytes:
    content = io.BytesIO()
    np.save(content, np.asarray(frame))
    return content.getvalue()


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False)  # an answer may be NaN


def _plain(answer: Any) -> Any:
    """Numbers as JSON has them; a float32 comes back exactly."""
    if isinstance(answer, list):
        return [_plain(part) for part in answer]
    return np.asarray(answer, np.float32).tolist()


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return read_lines(path)
    except OSError as e:
        raise ConfigError(f"Expected a critic's record, got {path}: {e.strerror}.") from e
    except ValueError as e:
        raise _no_record(path) from e


def _read_info(path: Path) -> CriticInfo:
    lines: list[Any] = _whole_lines(path)[:1]
    if not lines or not isinstance(lines[0], dict) or lines[0].get("format") != _FORMAT:
        raise _no_record(path)
    facts = dict(lines[0]["critic"])
    facts["knows"] = parse_knowledge(facts["knows"], str(path))
    facts["inputs"] = tuple(facts["inputs"])
    return CriticInfo(**facts)


def _no_record(path: Path) -> ConfigError:
    return ConfigError(f"Expected a critic's record with the first line {_FORMAT!r}, got {path}.")
