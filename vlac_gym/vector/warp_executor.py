"""A vector env's envs as worlds on a GPU: `WarpExecutor`, `WorldBatch`, `WarpSeat`, `warp_envs`."""

__all__ = ["WarpExecutor", "WarpSeat", "WorldBatch", "warp_envs"]

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vlac_gym.envs.libero.spaces import action_space, checked_cameras, observation_space, whole_number
from vlac_gym.envs.libero.tasks import CAMERAS
from vlac_gym.envs.warp.scene_files import SceneFiles, find_scene_folders, read_scene_files
from vlac_gym.errors import unknown_name
from vlac_gym.frames.on_device import blank_pictures, torch_stream
from vlac_gym.stepping.frame_source import image_keys
from vlac_gym.vector.commands import Reply
from vlac_gym.vector.executor import EnvFactory, ExecutorFactory, LocalExecutor
from vlac_gym.vector.slot import EnvSpaces
from vlac_gym.vector.world_envs import WorldEnvs, Worlds

PictureKind = Literal["numpy", "torch"]


class WarpSeat(gym.Env[Any, Any]):
    """Stands for one of the envs where only spaces and metadata are asked for; it cannot be played alone.

    Args:
        cameras: Which pictures the observation holds: ``"agentview"``, ``"wrist"`` or both.
        image_size: Side of the pictures in pixels.
    """

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 20, "renderer": "mujoco-warp"}  # noqa: RUF012

    def __init__(self, cameras: Sequence[str], image_size: int) -> None:
        self.observation_space: spaces.Dict[Any] = observation_space(cameras, image_size)
        self.action_space = action_space()


@dataclass(frozen=True)
class WorldBatch:
    """Worlds that move together, of one task or several.

    Attributes:
        envs: int (N,), which env each world is.
        tasks: Each one's `SceneFiles.task`, with its `num_starts`.
        worlds: What simulates them.
    """

    envs: NDArray[np.intp]
    tasks: Sequence[Mapping[str, Any]]
    worlds: Worlds


class WarpExecutor(LocalExecutor):
    """Carries commands out on worlds, in this process; the envs of a batch move at once, and all batches side by side.

    Args:
        batches: Hold each env once.
        spaces: One env's spaces.
        num_envs: How many.
        cameras: Of the observation.
        step_limit: Env steps at which an episode is truncated; None for the task's own.
        torch_device: Where the worlds' pictures are, and the observations' then, as torch tensors; None for arrays.

    Raises:
        DependencyNotInstalled: Pictures are tensors, and torch is missing.
    """

    def __init__(
        self,
        batches: Iterable[WorldBatch],
        spaces: EnvSpaces,
        num_envs: int,
        *,
        cameras: Sequence[str],
        step_limit: int | None = None,
        torch_device: str | None = None,
    ) -> None:
        super().__init__(spaces, num_envs)
        self._torch_device: Any = None
        if torch_device is not None:
            for key in image_keys(spaces.observation):
                self.batch[key] = blank_pictures(self.batch[key].shape, torch_device)
                self._torch_device = self.batch[key].device
        self._homes: dict[int, tuple[WorldEnvs, int]] = {}
        for batch in batches:
            observed = partial(self._observe, batch.envs)
            home = WorldEnvs(batch.tasks, batch.worlds, cameras, step_limit, observed)
            self._homes |= {int(env): (home, row) for row, env in enumerate(batch.envs)}

    def collect(self) -> dict[int, Reply]:
        """Carries the commands out."""
        with torch_stream(self._torch_device):
            return self._collected()

    def _collected(self) -> dict[int, Reply]:
        commands, self._commands = self._commands, {}
        by_home: dict[WorldEnvs, dict[int, int]] = {}
        for env in commands:
            home, row = self._homes[env]
            by_home.setdefault(home, {})[row] = env
        runs = {
            home: home.run({row: commands[env] for row, env in envs.items()})
            for home, envs in by_home.items()
        }
        replies: dict[int, Reply] = {}
        while runs:
            for home, run in list(runs.items()):
                try:
                    next(run)
                except StopIteration as end:
                    replies |= {by_home[home][row]: reply for row, reply in end.value.items()}
                    del runs[home]
        return dict(sorted(replies.items()))

    def collect_ready(self, timeout_s: float | None, wake: Connection) -> dict[int, Reply]:
        """Carries all commands out, since worlds move together; waits for `wake` if there are none."""
        if not self._commands:
            wait([wake], timeout_s)
            return {}
        return self.collect()

    def close(self) -> None:
        """Lets go of the worlds; safe to call twice."""
        self._commands, self._homes = {}, {}

    def _observe(self, envs: NDArray[np.intp], key: str, rows: NDArray[np.intp], values: Any) -> None:
        self.batch[key][envs[rows]] = values


def warp_envs(
    scenes: str | os.PathLike[str],
    tasks: Sequence[tuple[str, int]],
    *,
    cameras: Sequence[str] = ("agentview", "wrist"),
    image_size: int = 256,
    max_episode_steps: int | None = None,
    device: str = "cuda:0",
    pictures: PictureKind = "numpy",
) -> tuple[list[EnvFactory], ExecutorFactory]:
    """What `RolloutVectorEnv` takes for envs on a GPU: factories of its envs, and what runs them (`mode`).

    Args:
        scenes: Where `vlac-gym export-scenes` wrote the tasks.
        tasks: Each env's (suite, task id). Envs of one task move together, wherever they stand in the list,
            and so do those of tasks with one `SceneFiles.batch_key`.
        cameras: Which pictures the observation holds.
        image_size: Side of the pictures in pixels, 16..2048.
        max_episode_steps: Step limit, 1..1,000,000, or None for the suites'.
        device: Warp's name of the device; ``"cpu"`` works, for tests.
        pictures: What the pictures of observations are: numpy arrays, or ``"torch"`` tensors that stay on the device,
            uint8 (num_envs, H, W, 3). A critic that takes them (nano, every in-process VLAC) judges them there; others
            are given downloaded ones.

    Raises:
        ConfigError: An argument does not fit, or a task was not exported.
        DependencyNotInstalled: mujoco-warp is missing.
    """
    cameras, image_size = checked_cameras(cameras), whole_number("image_size", image_size, 16, 2048)
    if max_episode_steps is not None:
        max_episode_steps = whole_number("max_episode_steps", max_episode_steps, 1, 1_000_000)
    if pictures not in get_args(PictureKind):
        raise unknown_name("kind of pictures", str(pictures), get_args(PictureKind))
    folders = find_scene_folders(scenes, tasks)
    from vlac_gym.envs.warp.worlds import WarpWorlds  # what is missing is told here, before anything is made

    make = partial(
        WarpWorlds,
        cameras=[CAMERAS[camera] for camera in cameras],
        image_size=image_size,
        device=device,
        as_tensors=pictures == "torch",
    )

    def executor(fns: Sequence[EnvFactory], spaces: EnvSpaces, /, **_deadlines: Any) -> WarpExecutor:
        return WarpExecutor(
            _make_batches(folders, tasks, make),
            spaces,
            len(tasks),
            cameras=cameras,
            step_limit=max_episode_steps,
            torch_device=device if pictures == "torch" else None,
        )

    return [partial(WarpSeat, cameras, image_size)] * len(tasks), executor


_Parts = Sequence[tuple[SceneFiles, int]]


def _make_batches(
    folders: Mapping[tuple[str, int], Path],
    tasks: Sequence[tuple[str, int]],
    make: Callable[[_Parts], Worlds],
) -> Iterator[WorldBatch]:
    """Worlds for each env's task; those of one `batch_key` together, task by task."""
    together: dict[str, list[tuple[SceneFiles, NDArray[np.intp]]]] = {}
    chosen = list(dict.fromkeys(tasks))
    with ThreadPoolExecutor() as threads:  # most of it is MuJoCo's compiler, which lets other threads work
        scenes = list(threads.map(_read_scene, [folders[task] for task in chosen]))
    for task, scene in zip(chosen, scenes, strict=True):
        envs = np.flatnonzero([each == task for each in tasks])
        together.setdefault(scene.batch_key, []).append((scene, envs))
    for parts in together.values():
        facts = [
            scene.task | {"num_starts": len(scene.starts["qpos"])} for scene, envs in parts for _ in envs
        ]
        worlds = make([(scene, len(envs)) for scene, envs in parts])
        yield WorldBatch(np.concatenate([envs for _, envs in parts]), facts, worlds)


def _read_scene(folder: Path) -> SceneFiles:
    """A task's files, with the batch key, which is a pass over the whole model."""
    scene = read_scene_files(folder)
    _ = scene.batch_key
    return scene
