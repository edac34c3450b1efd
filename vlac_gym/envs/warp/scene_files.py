"""A LIBERO task in files, for machines without LIBERO.

`SceneFiles`, `read_scene_files`, `read_task`, `list_scene_folders`, `find_scene_folders`, `count_starts`.
"""

__all__ = [
    "GET_WARP",
    "START_ARRAYS",
    "SceneFiles",
    "count_starts",
    "find_scene_folders",
    "list_scene_folders",
    "read_scene_files",
    "read_task",
]

import copy
import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs

GET_WARP = (
    'In an environment of its own, since LIBERO needs another MuJoCo, run: pip install "vlac-gym[warp]"'
)
"""How to get what worlds on a GPU need: installed beside LIBERO, it would replace the MuJoCo of LIBERO."""

FORMAT = 1
"""Of the files; another one is refused."""

START_ARRAYS = ("qpos", "qvel", "qacc_warmstart", "goal_position", "goal_rotation", "grip")
"""What an env step follows from: the state, where the contact solver begins, and the controller's goal and grip."""

_MESH_PLACES = ("geom_aabb", "geom_pos", "geom_quat", "geom_rbound", "geom_size")

_OF_A_WORLD = (
    "suite",
    "task_id",
    "task",
    "max_episode_steps",
    "num_init_states",
    "goal",
    "goal_bodies",
    "goal_geoms",
    "goal_site",
    "goal_size",
)
"""What of a task's facts may differ between worlds of one batch."""


@dataclass(frozen=True)
class SceneFiles:
    """A folder that `vlac_gym.envs.warp.export` wrote, read.

    Attributes:
        task: `task.json`: names, ids in the model, the controller's constants, the goal.
        model: The scene, compiled by the installed MuJoCo, with the exported numbers written into it.
        changed: Arrays that the installed MuJoCo had compiled to other numbers, with the largest difference.
        starts: Settled starts, float64 (num_init_states, …), by the names of `START_ARRAYS`.
    """

    task: dict[str, Any]
    model: Any
    changed: dict[str, float]
    starts: dict[str, NDArray[np.float64]]

    @cached_property
    def batch_key(self) -> str:
        """Equal for tasks whose worlds can be of one batch: they differ in where bodies stand, starts and goals only.

        All else of the compiled model is compared to the byte, meshes and textures included.
        """
        with needs("Simulating on a GPU", get=GET_WARP):
            import mujoco

        model = copy.copy(self.model)
        model.body_pos[:] = 0.0
        model.body_quat[:] = 0.0
        packed = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
        mujoco.mj_saveModel(model, None, packed)
        same = {name: value for name, value in self.task.items() if name not in _OF_A_WORLD}
        digest = hashlib.sha256(packed.data)
        digest.update(json.dumps(same, sort_keys=True).encode())
        return digest.hexdigest()


def list_scene_folders(root: Path) -> dict[tuple[str, int], Path]:
    """(suite, task id) -> folder, of all tasks below a folder.

    Raises:
        ConfigError: There are none, or a `task.json` is another's.
    """
    tasks = {_task_of(path): path.parent for path in sorted(root.glob("*/task.json"))}
    if not tasks:
        if (root / "task.json").exists():
            raise ConfigError(
                f"Expected the folder of the tasks' folders, got a task's: {root}. Pass {root.parent}."
            )
        raise ConfigError(
            f"Expected exported tasks in {root}, found none. Where vlac-gym[libero] is installed, run: "
            f"vlac-gym export-scenes --out {root}"
        )
    return tasks


def find_scene_folders(
    root: str | os.PathLike[str], tasks: Collection[tuple[str, int]]
) -> dict[tuple[str, int], Path]:
    """(suite, task id) -> folder, of these tasks.

    Raises:
        ConfigError: One of them was not exported there.
    """
    folders = list_scene_folders(Path(root))
    for suite, task_id in tasks:
        if (suite, task_id) not in folders:
            known = ", ".join(f"{suite} {task_id}" for suite, task_id in sorted(folders))
            raise ConfigError(
                f"Expected tasks that were exported to {root} ({known}), got {suite} {task_id}. Run where LIBERO is "
                f"installed: vlac-gym export-scenes --task-suite {suite} --task-ids {task_id} --out {root} --resume"
            )
    return {task: folders[task] for task in tasks}


def read_task(folder: Path) -> dict[str, Any]:
    """A task's `task.json`: `suite`, `task_id`, its text `task`, and what its simulation needs.

    Raises:
        ConfigError: The folder is of another format.
    """
    task: dict[str, Any] = json.loads((folder / "task.json").read_text())
    if task.get("format") != FORMAT:
        raise ConfigError(
            f"Expected files of format {FORMAT} in {folder}, got {task.get('format')}. Export the task anew."
        )
    return task


def _task_of(path: Path) -> tuple[str, int]:
    try:
        task = json.loads(path.read_text())
        return task["suite"], int(task["task_id"])
    except (ValueError, KeyError, TypeError) as e:
        raise ConfigError(
            f"Expected {path} as vlac-gym export-scenes writes it, got {e!r} there. Delete its folder and export anew."
        ) from e


def count_starts(folder: Path) -> int:
    """Settled initial states in a task's folder."""
    with np.load(folder / "starts.npz") as arrays:
        return len(arrays["qpos"])


def read_scene_files(folder: Path) -> SceneFiles:
    """Reads a task's folder and compiles its scene.

    Raises:
        ConfigError: The folder is of another format, or the installed MuJoCo compiles the scene to other sizes.
        DependencyNotInstalled: MuJoCo is missing.
    """
    with needs("Simulating on a GPU", get=GET_WARP):
        import mujoco
    task = read_task(folder)
    model = mujoco.MjModel.from_xml_path(str(folder / "scene.xml"))
    sizes = {name: int(getattr(model, name)) for name in task["sizes"]}
    if sizes != task["sizes"]:
        raise ConfigError(
            f"Expected {folder} to compile to {task['sizes']}, got {sizes} by MuJoCo {mujoco.__version__}. {GET_WARP}"
        )
    with np.load(folder / "model.npz") as arrays:
        changed = _write_numbers(mujoco, model, dict(arrays))
    with np.load(folder / "starts.npz") as arrays:
        starts = {name: arrays[name] for name in START_ARRAYS}
    return SceneFiles(task, model, changed, starts)


def _write_numbers(mujoco: Any, model: Any, arrays: dict[str, NDArray[Any]]) -> dict[str, float]:
    """Writes exported floating-point numbers into a model; returns which arrays differed by more than rounding.

    Where a mesh's geom lies and how large it is goes with the mesh's vertices: versions turn both to axes of their own.
    """
    meshes = model.geom_type == int(mujoco.mjtGeom.mjGEOM_MESH)
    changed = {}
    for name, value in arrays.items():
        here = getattr(model, name, None)
        if not isinstance(here, np.ndarray) or here.dtype.kind != "f" or here.shape != value.shape:
            continue
        rows = ~meshes if name in _MESH_PLACES else slice(None)
        apart = float(np.abs(here[rows] - value[rows]).max(initial=0.0))
        if apart > 1e-7:
            changed[name] = apart
        here[rows] = value[rows]
    return changed
