"""A folder of gpu_recording.py, read: `Recording`, `read_recording`. Needs the MuJoCo that mujoco-warp goes with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.envs.warp.scene_files import SceneFiles, read_scene_files


@dataclass(frozen=True)
class Recording(SceneFiles):
    """A task in files, with recorded episodes.

    Attributes:
        official: The official initial states that `starts` were settled from, (num_starts, 1 + nq + nv).
        episodes: Of `episodes.npz`, one mapping each; the last is of random actions.
    """

    official: np.ndarray
    episodes: list[dict[str, np.ndarray]]


def read_recording(folder: Path) -> Recording:
    """Reads a task's folder and compiles its scene."""
    scene = read_scene_files(folder)
    with np.load(folder / "starts.npz") as arrays:
        official = arrays["official"]
    with np.load(folder / "episodes.npz") as arrays:
        split: list[tuple[str, str, Any]] = [(*name.rsplit("_", 1), value) for name, value in arrays.items()]
    episodes: list[dict[str, np.ndarray]] = [
        {} for _ in range(1 + max((int(i) for _, i, _ in split), default=-1))
    ]
    for name, i, value in split:
        episodes[int(i)][name] = value
    return Recording(scene.task, scene.model, scene.changed, scene.starts, official, episodes)
