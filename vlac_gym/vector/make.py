"""LIBERO's tasks as a vector env: `make_vec`."""

__all__ = ["make_vec"]

from collections.abc import Sequence
from functools import partial
from typing import Any

from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.envs.libero.tasks import get_task, list_tasks
from vlac_gym.errors import ConfigError
from vlac_gym.vector.config import VectorConfig, split_options
from vlac_gym.vector.rollout_env import RolloutVectorEnv


def make_vec(
    task_suite: str = "libero_spatial",
    task_ids: int | Sequence[int] | None = None,
    num_envs: int = 1,
    **options: Any,
) -> RolloutVectorEnv:
    """Makes `num_envs` LIBERO envs that step at once, in worker processes that start their simulator once.

    Tasks are dealt out in turn, one per group: with ``task_ids=(0, 3), num_envs=8, group_size=2`` envs 0 and
    1 play task 0, 2 and 3 task 3, 4 and 5 task 0, 6 and 7 task 3. ``reset(options={"task_id": [...]})``
    changes that. ``gymnasium.make_vec("vlac_gym/Libero-v0", num_envs=8, …)`` is the same with the same arguments.

    Args:
        task_suite: A name from `vlac_gym.envs.list_suites`.
        task_ids: A task, several, or None for all of the suite.
        num_envs: Number of envs.
        **options: Keyword arguments of `RolloutVectorEnv` (`mode`, `group_size`, `autoreset_mode`, `render_processes`,
            …) and of `LiberoEnv` (`cameras`, `image_size`, `max_episode_steps`, …).

    Raises:
        ConfigError: An argument does not fit; no process was started.
        DependencyNotInstalled: LIBERO is not installed.
    """
    own, env_options = split_options(options)
    if "task_id" in env_options:
        raise ConfigError(
            f"Expected task_ids, which a vector env's envs share out, got task_id={env_options['task_id']!r}."
        )
    if task_ids is None:
        chosen: tuple[int, ...] = tuple(range(len(list_tasks(task_suite))))
    else:
        chosen = (task_ids,) if isinstance(task_ids, int) else tuple(task_ids)
    if not chosen or num_envs < 1:
        raise ConfigError(f"Expected at least one task and one env, got {len(chosen)} and {num_envs}.")
    group_size = VectorConfig(**own).group_size
    if group_size < 1 or num_envs % group_size:
        raise ConfigError(f"Expected group_size to divide num_envs {num_envs}, got {group_size}.")
    tasks = [get_task(task_suite, task_id).task_id for task_id in chosen]
    env_fns = [
        partial(LiberoEnv, task_suite, tasks[i // group_size % len(tasks)], **env_options)
        for i in range(num_envs)
    ]
    return RolloutVectorEnv(env_fns, **own)
