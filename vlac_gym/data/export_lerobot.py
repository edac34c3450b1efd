"""Demonstrations as a LeRobot dataset, format v3.0, for behaviour cloning: `export_lerobot`.

The layout follows huggingface/lerobot, commit 7427f31, `src/lerobot/datasets/{utils,dataset_metadata}.py`:
`meta/info.json`, `meta/stats.json`, `meta/tasks.parquet`, `meta/episodes/chunk-000/file-000.parquet` and
`data/chunk-000/file-NNN.parquet` with the pictures inside (feature type `image`).
"""

__all__ = ["LEROBOT_VERSION", "demonstrations", "export_lerobot"]

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.data.episodes import Episode
from vlac_gym.errors import ConfigError, DependencyNotInstalled
from vlac_gym.reporting.files import partial_path, write_json

LEROBOT_VERSION = "v3.0"
_FPS = 20  # LIBERO's control rate, Hz
_CHUNKS_SIZE = 1000
_EPISODES_PER_FILE = 50
_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
_STATE_NAMES = ("x", "y", "z", "axis_angle_x", "axis_angle_y", "axis_angle_z", "finger_1", "finger_2")
_ACTION_NAMES = ("dx", "dy", "dz", "rx", "ry", "rz", "gripper")
_NUMBERS = ("observation.state", "action", "timestamp", "frame_index", "episode_index", "index", "task_index")
_INTEGERS = ("frame_index", "episode_index", "index", "task_index")


def demonstrations(dataset: EpisodeDataset) -> EpisodeDataset:
    """Episodes worth imitating: honest attempts that end in success.

    Raises:
        ConfigError: There is none, or one has not a frame of every step.
    """
    chosen = dataset.select(lambda entry: entry.meta.imperfection == "none" and entry.ends_in_success)
    if not chosen:
        raise ConfigError(
            f"{dataset.root} holds no honest attempt (imperfection 'none') that ends in success."
        )
    strides = sorted({entry.meta.frame_stride_steps for entry in chosen.entries})
    if strides != [1]:
        raise ConfigError(
            f"Demonstrations need a frame of every step, {chosen.root} has one of every {strides} steps. "
            "Collect them with --frame-stride-steps 1."
        )
    return chosen


def export_lerobot(dataset: EpisodeDataset, out: Path) -> int:
    """Writes the demonstrations of a dataset, each up to its first success.

    Args:
        dataset: Recorded episodes; see `demonstrations`.
        out: A folder that does not exist yet or is empty.

    Returns:
        How many demonstrations were written.

    Raises:
        ConfigError: No usable demonstration, cameras that differ, or a folder that is not empty.
        DependencyNotInstalled: pyarrow is missing; nothing is written.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as e:
        raise DependencyNotInstalled(
            'LeRobot export needs pyarrow. Run: pip install "vlac-gym[lerobot]"'
        ) from e
    demos = demonstrations(dataset)
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"Expected an empty folder to export to, {out} holds files. Choose another.")
    first: Episode = demos[0]
    cameras = {camera: tuple(frames[0].shape) for camera, frames in first.frames.items()}
    texts = sorted(set(demos.tasks().values()))
    writer = _Writer(pa, pq, out, cameras, {text: i for i, text in enumerate(texts)})
    for begin in range(0, len(demos), _EPISODES_PER_FILE):
        writer.write_file([demos[i] for i in range(begin, min(begin + _EPISODES_PER_FILE, len(demos)))])
    writer.finish(texts)
    return len(demos)


class _Writer:
    """Writes data files, remembers what the metadata needs, and writes that last."""

    def __init__(
        self, pa: Any, pq: Any, out: Path, cameras: dict[str, tuple[int, ...]], tasks: dict[str, int]
    ) -> None:
        self._pa, self._pq, self._out = pa, pq, out
        self._cameras, self._tasks = cameras, tasks
        self._episodes: list[dict[str, Any]] = []
        self._numbers: dict[str, list[NDArray[Any]]] = {name: [] for name in _NUMBERS}
        self._pixels: dict[str, list[NDArray[np.float64]]] = {camera: [] for camera in cameras}
        self._frames = self._files = 0

    def write_file(self, episodes: Sequence[Episode]) -> None:
        """Writes one data file, a row group per episode."""
        chunk, file = divmod(self._files, _CHUNKS_SIZE)
        tables = [self._table(episode, chunk, file) for episode in episodes]
        path = self._out / _DATA_PATH.format(chunk_index=chunk, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_path(path)
        with self._pq.ParquetWriter(partial, tables[0].schema) as writer:
            for table in tables:
                writer.write_table(table)
        partial.replace(path)
        self._files += 1

    def finish(self, tasks: Sequence[str]) -> None:
        """Writes the metadata."""
        meta = self._out / "meta"
        (self._out / _EPISODES_PATH).parent.mkdir(parents=True, exist_ok=True)
        self._pq.write_table(self._pa.Table.from_pylist(self._episodes), self._out / _EPISODES_PATH)
        self._pq.write_table(self._task_table(tasks), meta / "tasks.parquet")
        write_json(meta / "stats.json", self._stats())
        write_json(meta / "info.json", self._info(len(tasks)))

    def _table(self, episode: Episode, chunk: int, file: int) -> Any:
        length = episode.first_success_step or episode.num_steps
        if {camera: tuple(f[0].shape) for camera, f in episode.frames.items()} != self._cameras:
            raise ConfigError(
                f"Expected cameras {self._cameras} in every episode, {episode.meta.episode_id} differs."
            )
        number = len(self._episodes)
        steps = np.arange(length)
        columns: dict[str, NDArray[Any]] = {
            "observation.state": episode.states[:length],
            "action": episode.actions[:length],
            "timestamp": (steps / _FPS).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(length, number),
            "index": self._frames + steps,
            "task_index": np.full(length, self._tasks[episode.meta.task]),
        }
        for name, values in columns.items():
            self._numbers[name].append(values)
        arrays = {name: self._array(values) for name, values in columns.items()}
        for camera in self._cameras:
            view = episode.view(camera)
            pictures = [{"bytes": view.encoded(i), "path": None} for i in range(length)]
            kind = self._pa.struct([("bytes", self._pa.binary()), ("path", self._pa.string())])
            arrays[_image_key(camera)] = self._pa.array(pictures, kind)
            sampled = [view[i] for i in range(0, length, max(1, length // 8))]
            self._pixels[camera].append(np.concatenate([f.reshape(-1, 3) for f in sampled]) / 255.0)
        self._episodes.append(
            {
                "episode_index": number,
                "tasks": [episode.meta.task],
                "length": length,
                "data/chunk_index": chunk,
                "data/file_index": file,
                "dataset_from_index": self._frames,
                "dataset_to_index": self._frames + length,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
        self._frames += length
        return self._pa.table(arrays)

    def _array(self, values: NDArray[Any]) -> Any:
        if values.ndim == 1:
            return self._pa.array(values)
        flat = self._pa.array(values.astype(np.float32).reshape(-1))
        return self._pa.FixedSizeListArray.from_arrays(flat, values.shape[1])

    def _task_table(self, tasks: Sequence[str]) -> Any:
        """Task text as the index of a data frame, which the reader restores from the `pandas` metadata."""
        table = self._pa.table({"task_index": self._pa.array(np.arange(len(tasks))), "task": list(tasks)})
        columns = [
            {"name": n, "field_name": n, "pandas_type": kind, "numpy_type": numpy_type, "metadata": None}
            for n, kind, numpy_type in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
        ]
        content = {
            "index_columns": ["task"],
            "column_indexes": [],
            "columns": columns,
            "pandas_version": "2.0.0",
        }
        return table.replace_schema_metadata({"pandas": json.dumps(content)})

    def _stats(self) -> dict[str, dict[str, Any]]:
        stats = {name: _summary(np.concatenate(parts)) for name, parts in self._numbers.items()}
        for camera, parts in self._pixels.items():
            pixels = _summary(np.concatenate(parts))
            shaped = {k: np.reshape(v, (3, 1, 1)).tolist() for k, v in pixels.items() if k != "count"}
            stats[_image_key(camera)] = {**shaped, "count": pixels["count"]}
        return stats

    def _info(self, num_tasks: int) -> dict[str, Any]:
        features: dict[str, Any] = {
            _image_key(camera): {
                "dtype": "image",
                "shape": list(shape),
                "names": ["height", "width", "channels"],
            }
            for camera, shape in self._cameras.items()
        }
        features["observation.state"] = {"dtype": "float32", "shape": [8], "names": list(_STATE_NAMES)}
        features["action"] = {"dtype": "float32", "shape": [7], "names": list(_ACTION_NAMES)}
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        features |= {name: {"dtype": "int64", "shape": [1], "names": None} for name in _INTEGERS}
        return {
            "codebase_version": LEROBOT_VERSION,
            "fps": _FPS,
            "features": features,
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": num_tasks,
            "chunks_size": _CHUNKS_SIZE,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "data_path": _DATA_PATH,
            "video_path": None,
            "robot_type": "panda",
            "splits": {"train": f"0:{len(self._episodes)}"},
        }


def _image_key(camera: str) -> str:
    return f"observation.images.{camera}"


def _summary(values: NDArray[Any]) -> dict[str, Any]:
    rows = values.reshape(len(values), -1).astype(np.float64)
    return {
        "min": rows.min(axis=0).tolist(),
        "max": rows.max(axis=0).tolist(),
        "mean": rows.mean(axis=0).tolist(),
        "std": rows.std(axis=0).tolist(),
        "count": [len(rows)],
    }
