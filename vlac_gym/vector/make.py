"""LIBERO's tasks as a vector env: `make_vec`."""

__all__ = ["make_vec"]

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from gymnasium.vector import AutoresetMode

from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.envs.libero_tasks import get_task, list_tasks
from vlac_gym.errors import ConfigError
from vlac_gym.vector.reset_orders import EpisodeOptions
from vlac_gym.vector.rollout_env import RolloutVectorEnv


def make_vec(
    task_suite: str = "libero_spatial",
    task_ids: int | Sequence[int] | None = None,
    num_envs: int = 1,
    *,
    mode: Literal["async", "sync"] = "async",
    group_size: int = 1,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    envs_per_worker: int = 1,
    context: Literal["spawn", "forkserver"] = "spawn",
    start_timeout_s: float = 600.0,
    step_timeout_s: float = 120.0,
    max_restarts: int = 3,
    render_devices: Sequence[int] | None = None,
    episode_options: EpisodeOptions | None = None,
    copy: bool = True,
    **env_options: Any,
) -> RolloutVectorEnv:
    """Makes `num_envs` LIBERO envs that step at once, in worker processes that start their simulator once.

    Tasks are dealt out in turn, one per group: with ``task_ids=(0, 3), num_envs=8, group_size=2`` envs 0 and
    1 play task 0, 2 and 3 task 3, 4 and 5 task 0, 6 and 7 task 3. ``reset(options={"task_id": [...]})``
    changes that.

    Args:
        task_suite: A name from `vlac_gym.envs.list_suites`.
        task_ids: A task, several, or None for all of the suite.
        num_envs: Number of envs.
        mode: See `RolloutVectorEnv`, like every argument not described here.
        group_size: See there.
        autoreset_mode: See there.
        envs_per_worker: See there.
        context: See there.
        start_timeout_s: See there.
        step_timeout_s: See there.
        max_restarts: See there.
        render_devices: See there.
        episode_options: See there.
        copy: See there.
        **env_options: Arguments of `LiberoEnv`: `cameras`, `image_size`, `max_episode_steps`, …

    Raises:
        ConfigError: An argument does not fit; no process was started.
        DependencyNotInstalled: LIBERO is not installed.
    """
    if task_ids is None:
        chosen: tuple[int, ...] = tuple(range(len(list_tasks(task_suite))))
    else:
        chosen = (task_ids,) if isinstance(task_ids, int) else tuple(task_ids)
    if not chosen or num_envs < 1:
        raise ConfigError(f"Expected at least one task and one env, got {len(chosen)} and {num_envs}.")
    if group_size < 1 or num_envs % group_size:
        raise ConfigError(f"Expected group_size to divide num_envs {num_envs}, got {group_size}.")
    tasks = [get_task(task_suite, task_id).task_id for task_id in chosen]
    env_fns = [
        partial(LiberoEnv, task_suite, tasks[i // group_size % len(tasks)], **env_options)
        for i in range(num_envs)
    ]
    return RolloutVectorEnv(
        env_fns,
        mode=mode,
        autoreset_mode=autoreset_mode,
        group_size=group_size,
        envs_per_worker=envs_per_worker,
        context=context,
        start_timeout_s=start_timeout_s,
        step_timeout_s=step_timeout_s,
        max_restarts=max_restarts,
        render_devices=render_devices,
        episode_options=episode_options,
        copy=copy,
    )
