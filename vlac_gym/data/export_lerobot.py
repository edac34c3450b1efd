"""Demonstrations as a LeRobot dataset, format v3.0, for behaviour cloning: `export_lerobot`.

The layout follows huggingface/lerobot, commit 7427f31, `src/lerobot/datasets/{utils,dataset_metadata}.py`:
`meta/info.json`, `meta/stats.json`, `meta/tasks.parquet`, `meta/episodes/chunk-000/file-000.parquet` and
`data/chunk-000/file-NNN.parquet` with the pictures inside (feature type `image`); `lerobot_stats` has the statistics.
"""

__all__ = ["LEROBOT_VERSION", "demonstrations", "export_lerobot"]

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.data.episodes import Episode
from vlac_gym.data.lerobot_stats import PixelStats, vector_stats
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.atomic import partial_path, write_json
from vlac_gym.files.output_folder import claim_folder
from vlac_gym.frames.codec import EncodedFrames, FrameEncoding, encode_frame
from vlac_gym.frames.convention import ImageConvention, convert_image

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
    """Episodes worth imitating: honest attempts that end in success and did not begin in it.

    Raises:
        ConfigError: There is none, or one has not a frame of every step.
    """
    chosen = dataset.select(
        lambda entry: (
            entry.meta.imperfection == "none" and entry.ends_in_success and entry.first_success_step != 0
        )
    )
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


def export_lerobot(
    dataset: EpisodeDataset, out: Path, *, image_convention: ImageConvention = ImageConvention.UPRIGHT
) -> int:
    """Writes the demonstrations of a dataset, each up to its first success.

    Args:
        dataset: Recorded episodes; see `demonstrations`.
        out: A folder that is new or empty.
        image_convention: Which way round the pictures are written. `RAW_ROTATED_180` is that of the LIBERO sets
            published for LeRobot, and of what lerobot's own LIBERO env shows a policy: our upright pictures are
            mirrored against those. `info.json` states it in each picture feature's `info`. Pictures that are turned
            are compressed again, in the format that they were recorded in.

    Returns:
        How many demonstrations were written.

    Raises:
        ConfigError: No usable demonstration, cameras that differ, or a folder that holds files or can't be written
            to; nothing is written.
        DependencyNotInstalled: pyarrow or filelock is missing; nothing is written.
    """
    with needs("LeRobot export", "lerobot"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    demos = demonstrations(dataset)
    texts = sorted(set(demos.tasks().values()))
    with claim_folder(out):
        writer = _Writer(
            pa, pq, out, _common_cameras(demos), {text: i for i, text in enumerate(texts)}, image_convention
        )
        for begin in range(0, len(demos), _EPISODES_PER_FILE):
            writer.write_file([demos[i] for i in range(begin, min(begin + _EPISODES_PER_FILE, len(demos)))])
        writer.finish(texts)
    return len(demos)


def _common_cameras(demos: EpisodeDataset) -> dict[str, tuple[int, ...]]:
    """Each view's shape (H, W, 3), the same in all episodes."""
    expected: dict[str, tuple[int, ...]] = {}
    for episode in demos:
        cameras = {camera: tuple(frames[0].shape) for camera, frames in episode.frames.items()}
        expected = expected or cameras
        if cameras != expected:
            raise ConfigError(
                f"Expected cameras {expected} in every demonstration of {demos.root}, "
                f"{episode.meta.episode_id} has {cameras}. Export them from folders of their own."
            )
    return expected


class _Writer:
    """Writes data files, remembers what the metadata needs, and writes that last."""

    def __init__(
        self,
        pa: Any,
        pq: Any,
        out: Path,
        cameras: dict[str, tuple[int, ...]],
        tasks: dict[str, int],
        convention: ImageConvention,
    ) -> None:
        self._pa, self._pq, self._out = pa, pq, out
        self._cameras, self._tasks, self._convention = cameras, tasks, convention
        self._episodes: list[dict[str, Any]] = []
        self._numbers: dict[str, list[NDArray[Any]]] = {name: [] for name in _NUMBERS}
        self._pixels = {camera: PixelStats() for camera in cameras}
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
        length = episode.first_success_step
        assert length is not None  # see `demonstrations`
        number = len(self._episodes)
        steps = np.arange(length)
        columns: dict[str, NDArray[Any]] = {
            "observation.state": episode.states[:length],
            "action": episode.label_actions[:length],
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
            arrays[_image_key(camera)] = self._pictures(episode, camera, length)
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

    def _pictures(self, episode: Episode, camera: str, length: int) -> Any:
        """The column of a camera; counts eight or nine of an episode's pictures for the statistics."""
        view = episode.view(camera)
        encoding = cast(FrameEncoding, episode.meta.encoding)
        data = [_encoded(view, i, self._convention, encoding) for i in range(length)]
        for i in range(0, length, max(1, length // 8)):
            self._pixels[camera].add(view[i])
        kind = self._pa.struct([("bytes", self._pa.binary()), ("path", self._pa.string())])
        return self._pa.array([{"bytes": picture, "path": None} for picture in data], kind)

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
        stats = {name: vector_stats(np.concatenate(parts)) for name, parts in self._numbers.items()}
        return stats | {_image_key(camera): pixels.result() for camera, pixels in self._pixels.items()}

    def _info(self, num_tasks: int) -> dict[str, Any]:
        features: dict[str, Any] = {
            _image_key(camera): {
                "dtype": "image",
                "shape": list(shape),
                "names": ["height", "width", "channels"],
                "info": {"image_convention": self._convention.value},
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


def _encoded(view: EncodedFrames, index: int, convention: ImageConvention, encoding: FrameEncoding) -> bytes:
    if convention is ImageConvention.UPRIGHT:
        return view.encoded(index)
    return encode_frame(convert_image(view[index], convention), encoding)
