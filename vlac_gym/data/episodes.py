"""Recorded episodes on disk: `EpisodeMeta`, `Episode`, `write_episode`, `read_episode`, `episode_path`.

One `.npz` file per episode (a plain zip of arrays, no pickle):

| member | type | meaning |
|---|---|---|
| `meta` | uint8 (B,) | JSON text of `EpisodeMeta` |
| `actions` | float32 (T, A) | action t, as executed, leads from state t to state t + 1 |
| `clean_actions` | float32 (T, A) | what the policy asked for, before noise; absent where none was added |
| `states` | float32 (T + 1, S) | the env's `state`; index 0 is right after reset |
| `success` | bool (T + 1,) | the simulator's goal predicate at each step; it may be lost again |
| `goal_progress` | float32 (T + 1,) | remaining-distance label in [0, 1], 1 exactly where `success` |
| `stages` | str (T + 1,) | what the policy was doing, `""` where it does not say |
| `frame_steps` | int32 (F,) | the step of each frame, rising; the first and the last step are always there |
| `frames/VIEW/data`, `…/offsets` | uint8, int64 | frames of a camera or `CAMERA@LIGHT`, see `EncodedFrames` |

A file is written under a temporary name and renamed, so that what is in the folder is always whole. Format 2 has
`clean_actions`, format 1 has not and is written where there are none: both are read.
"""

__all__ = [
    "EPISODE_FORMAT",
    "Episode",
    "EpisodeMeta",
    "episode_path",
    "read_episode",
    "read_meta",
    "write_episode",
]

import dataclasses
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError
from vlac_gym.frames.codec import EncodedFrames
from vlac_gym.types import FloatArray

EPISODE_FORMAT = 2
"""Newest version of the file format; a reader refuses newer ones."""


@dataclass(frozen=True)
class EpisodeMeta:
    """What an episode is, apart from its arrays.

    Attributes:
        task_suite: Suite name, e.g. `"libero_spatial"`.
        task_id: Index of the task in its suite.
        task: Instruction text.
        init_state_id: Which official initial state the episode began from.
        policy: Policy spec that drove the arm, e.g. `"expert"`.
        imperfection: What was spoilt on purpose, `"none"` for an honest attempt.
        seed: Seed of the policy's own randomness.
        frame_stride_steps: A frame was kept every so many env steps.
        encoding: `"jpeg"` or `"png"`.
        details: More facts; JSON-serialisable. `record_episode` adds `wall_s`, the time the episode took,
            and `renderer`, what drew the pictures, e.g. `"mujoco 3.3.2"`, or None.
    """

    task_suite: str
    task_id: int
    task: str
    init_state_id: int
    policy: str
    imperfection: str = "none"
    seed: int = 0
    frame_stride_steps: int = 1
    encoding: str = "jpeg"
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def episode_id(self) -> str:
        """File-name-safe name; differs with task, start, policy, imperfection and seed."""
        policy = re.sub(r"[^A-Za-z0-9]+", "-", f"{self.policy} {self.imperfection}").strip("-")
        return f"{self.task_suite}-t{self.task_id:02d}-i{self.init_state_id:02d}-{policy}-s{self.seed}"


@dataclass(frozen=True)
class Episode:
    """One recorded episode; see the module docstring for shapes.

    Raises:
        ConfigError: Arrays disagree in length or shape, or `goal_progress` leaves [0, 1].
    """

    meta: EpisodeMeta
    actions: FloatArray
    states: FloatArray
    success: NDArray[np.bool_]
    goal_progress: FloatArray
    stages: NDArray[np.str_]
    frame_steps: NDArray[np.int32]
    frames: Mapping[str, EncodedFrames]
    clean_actions: FloatArray | None = None

    def __post_init__(self) -> None:
        points = len(self.actions) + 1
        lengths = {
            name: len(getattr(self, name)) for name in ("states", "success", "goal_progress", "stages")
        }
        if set(lengths.values()) != {points}:
            raise ConfigError(f"Expected {points} entries (actions + 1) of each, got {lengths}.")
        if self.clean_actions is not None and self.clean_actions.shape != self.actions.shape:
            raise ConfigError(
                f"Expected clean_actions of shape {self.actions.shape}, as actions, got {self.clean_actions.shape}."
            )
        if not np.all((self.goal_progress >= 0) & (self.goal_progress <= 1)):
            raise ConfigError("Expected goal_progress in [0, 1], got values outside or NaN.")
        steps = self.frame_steps
        if steps.size == 0 or steps[0] != 0 or steps[-1] != points - 1 or (np.diff(steps) <= 0).any():
            raise ConfigError(f"Expected frame_steps rising from 0 to {points - 1}, got {steps.tolist()}.")
        for camera, frames in self.frames.items():
            if len(frames) != steps.size:
                raise ConfigError(f"Expected {steps.size} frames of camera {camera!r}, got {len(frames)}.")

    @property
    def num_steps(self) -> int:
        """Env steps taken."""
        return len(self.actions)

    @property
    def label_actions(self) -> FloatArray:
        """What to imitate at each step, float32 (T, A): `clean_actions` where noise was added, else `actions`."""
        return self.actions if self.clean_actions is None else self.clean_actions

    @property
    def first_success_step(self) -> int | None:
        """First step at which the simulator saw success, None if it never did."""
        return int(np.argmax(self.success)) if self.success.any() else None

    @property
    def ends_in_success(self) -> bool:
        """Whether the goal holds at the last step."""
        return bool(self.success[-1])

    @property
    def is_undone(self) -> bool:
        """Whether the goal held at some step and no longer does at the last."""
        return bool(self.success.any() and not self.success[-1])

    def info_at(self, step: int) -> dict[str, Any]:
        """The env's `info` at `step`, for critics that read the simulator's signals."""
        return {
            "success": bool(self.success[step]),
            "goal_progress": float(self.goal_progress[step]),
            "elapsed_steps": step,
            "task": self.meta.task,
            "task_suite": self.meta.task_suite,
            "task_id": self.meta.task_id,
            "init_state_id": self.meta.init_state_id,
        }

    def view(self, camera: str | None = None) -> EncodedFrames:
        """Frames of `camera`, of the first recorded camera by default."""
        name = next(iter(self.frames)) if camera is None else camera
        if name not in self.frames:
            raise ConfigError(
                f"Episode {self.meta.episode_id} has no camera {name!r}; it has {list(self.frames)}."
            )
        return self.frames[name]


def episode_path(root: Path, meta: EpisodeMeta) -> Path:
    """Where `write_episode` puts an episode below a dataset folder."""
    return root / "episodes" / f"{meta.episode_id}.npz"


def write_episode(root: Path, episode: Episode) -> Path:
    """Writes an episode below `root`, atomically; an episode of the same id is replaced. Returns its path."""
    path = episode_path(root, episode.meta)
    path.parent.mkdir(parents=True, exist_ok=True)
    version = EPISODE_FORMAT if episode.clean_actions is not None else 1
    head = json.dumps({"format": version, **dataclasses.asdict(episode.meta)}, ensure_ascii=False)
    members: dict[str, NDArray[Any]] = {
        "meta": np.frombuffer(head.encode(), np.uint8),
        **{name: getattr(episode, name) for name in _ARRAYS},
    }
    if episode.clean_actions is not None:
        members["clean_actions"] = episode.clean_actions
    for camera, frames in episode.frames.items():
        members[f"frames/{camera}/data"] = frames.data
        members[f"frames/{camera}/offsets"] = frames.offsets
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **members)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


_ARRAYS = ("actions", "states", "success", "goal_progress", "stages", "frame_steps")


def read_episode(path: Path) -> Episode:
    """Reads one episode; frames stay compressed until they are asked for.

    Raises:
        ConfigError: No such file, another format version, or a damaged file.
    """
    with _open(path) as archive:
        meta = _parse_meta(archive, path)
        cameras = [name.split("/")[1] for name in archive.files if name.endswith("/offsets")]
        return Episode(
            meta=meta,
            **{name: archive[name] for name in _ARRAYS},
            clean_actions=archive["clean_actions"] if "clean_actions" in archive.files else None,
            frames={
                camera: EncodedFrames(archive[f"frames/{camera}/data"], archive[f"frames/{camera}/offsets"])
                for camera in cameras
            },
        )


def read_meta(path: Path) -> tuple[EpisodeMeta, NDArray[np.bool_], int]:
    """Reads what an index needs, no frames: meta data, `success` (T + 1,) and the number of frames."""
    with _open(path) as archive:
        return _parse_meta(archive, path), archive["success"], int(archive["frame_steps"].size)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            yield archive
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as e:
        if isinstance(e, ConfigError):
            raise
        raise ConfigError(f"Expected an episode file (.npz) at {path}, but it can't be read: {e}") from e


def _parse_meta(archive: Any, path: Path) -> EpisodeMeta:
    try:
        fields = json.loads(archive["meta"].tobytes().decode())
        version = fields.pop("format")
    except (KeyError, ValueError) as e:
        raise ConfigError(
            f"{path} is no episode of this package: its 'meta' member is missing or damaged."
        ) from e
    if version not in range(1, EPISODE_FORMAT + 1):
        raise ConfigError(
            f"Expected episode format 1 to {EPISODE_FORMAT}, got {version} in {path}. Collect it again, or read it "
            "with the version of vlac-gym that wrote it."
        )
    return EpisodeMeta(**fields)
