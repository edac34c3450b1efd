"""LIBERO's tasks as a vector env: `make_vec`."""

__all__ = ["make_vec"]

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vlac_gym.checks import check_choice
from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.envs.libero.tasks import get_task, list_tasks
from vlac_gym.envs.warp.scene_files import list_scene_folders
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.vector.config import VectorConfig, VectorOptions, split_options
from vlac_gym.vector.rollout_env import RolloutVectorEnv
from vlac_gym.vector.warp_executor import warp_envs


def make_vec(
    task_suite: str = "libero_spatial",
    task_ids: int | Sequence[int] | None = None,
    num_envs: int = 1,
    *,
    backend: Literal["mujoco", "warp"] = "mujoco",
    scenes: str | os.PathLike[str] | None = None,
    **options: Any,
) -> RolloutVectorEnv:
    """Makes `num_envs` LIBERO envs that step at once, in worker processes that start their simulator once.

    With ``backend="warp"`` the envs are worlds on a GPU, in this process; docs/gpu_simulation.md says what they share
    with LIBERO and what not. They take the options of `warp_envs` instead of `LiberoEnv`'s, and nothing of workers.
    With ``pictures="torch"`` pictures stay on that GPU, from renderer to critic and policy.

    Tasks are dealt out in turn, one per group: with ``task_ids=(0, 3), num_envs=8, group_size=2`` envs 0 and
    1 play task 0, 2 and 3 task 3, 4 and 5 task 0, 6 and 7 task 3. ``reset(options={"task_id": [...]})``
    changes that. ``gymnasium.make_vec("vlac_gym/Libero-v0", num_envs=8, …)`` is the same with the same arguments.

    Args:
        task_suite: A name from `vlac_gym.envs.list_suites`.
        task_ids: A task, several, or None for all of the suite.
        num_envs: Number of envs.
        backend: What simulates and draws: MuJoCo as LIBERO has it, or mujoco-warp.
        scenes: For ``"warp"``, the folder that `vlac-gym export-scenes` wrote.
        **options: Keyword arguments of `RolloutVectorEnv` (`mode`, `group_size`, `autoreset_mode`, …) and of
            `LiberoEnv` (`cameras`, `image_size`, `max_episode_steps`, …).

    Raises:
        ConfigError: An argument does not fit; no process was started.
        DependencyNotInstalled: LIBERO is not installed.
    """
    own, env_options = split_options(options)
    check_choice("backend", backend, ("mujoco", "warp"))
    if (backend == "warp") != (scenes is not None):
        raise ConfigError(
            f"Expected scenes with backend='warp' and only there, got {backend!r} and {scenes!r}."
        )
    if scenes is None and (given := [name for name in _OF_WORLDS_ALONE if name in env_options]):
        raise ConfigError(f"Expected {given[0]} with backend='warp' only, got it with {backend!r}. Drop it.")
    if "task_id" in env_options:
        raise ConfigError(
            f"Expected task_ids, which a vector env's envs share out, got task_id={env_options['task_id']!r}."
        )
    chosen: tuple[int, ...]
    if task_ids is not None:
        chosen = (task_ids,) if isinstance(task_ids, int | np.integer) else tuple(task_ids)
    elif scenes is not None:
        chosen = _exported(task_suite, Path(scenes))
    else:
        chosen = tuple(range(len(list_tasks(task_suite))))
    if not chosen or num_envs < 1:
        raise ConfigError(f"Expected at least one task and one env, got {len(chosen)} and {num_envs}.")
    group_size = VectorConfig(**own).group_size
    if group_size < 1 or num_envs % group_size:
        raise ConfigError(f"Expected group_size to divide num_envs {num_envs}, got {group_size}.")
    dealt = [chosen[i // group_size % len(chosen)] for i in range(num_envs)]
    if scenes is not None:
        return _on_gpu(Path(scenes), [(task_suite, task_id) for task_id in dealt], own, env_options)
    tasks = {task_id: get_task(task_suite, task_id).task_id for task_id in chosen}
    env_fns = [partial(LiberoEnv, task_suite, tasks[task_id], **env_options) for task_id in dealt]
    return RolloutVectorEnv(env_fns, **own)


def _exported(task_suite: str, scenes: Path) -> tuple[int, ...]:
    folders = list_scene_folders(scenes)
    task_ids = sorted(task_id for suite, task_id in folders if suite == task_suite)
    if not task_ids:
        raise unknown_name(f"task suite in {scenes}", task_suite, sorted({suite for suite, _ in folders}))
    return tuple(task_ids)


_OF_WORLDS_ALONE = ("device", "pictures")
_OF_WORLDS = ("cameras", "image_size", "max_episode_steps", *_OF_WORLDS_ALONE)
_OF_WORKERS = (
    "mode",
    "envs_per_worker",
    "context",
    "max_restarts",
    "start_timeout_s",
    "step_timeout_s",
    "render_devices",
    "pin_workers",
    "worker_niceness",
)


def _on_gpu(
    scenes: Path, tasks: Sequence[tuple[str, int]], own: VectorOptions, env_options: dict[str, Any]
) -> RolloutVectorEnv:
    if refused := sorted(set(own) & set(_OF_WORKERS)):
        raise ConfigError(f"Expected no options of workers with backend='warp', got {', '.join(refused)}.")
    for name in env_options:
        if name not in _OF_WORLDS:
            raise unknown_name("option with backend='warp'", name, _OF_WORLDS)
    fns, own["mode"] = warp_envs(scenes, tasks, **env_options)
    return RolloutVectorEnv(fns, **own)
