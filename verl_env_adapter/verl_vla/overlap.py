"""Lets the pipeline stages of one verl-vla env worker run at the same time: `OverlappingEnvWorker`. Imports verl-vla.

verl-vla's `EnvWorker` is a Ray actor that runs one call at a time, so that stage B waits while stage A steps. As
a coroutine, the step leaves the actor free; each stage has a simulator process of its own.
"""

__all__ = ["OverlappingEnvWorker", "overlap_stages"]

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from verl_env_adapter.common.import_hooks import wrap_once
from verl_env_adapter.common.sources import VERL_VLA
from vlac_gym.extras import needs

with needs("The verl-vla adapter", get=VERL_VLA):
    from verl_vla.workers.env.env_worker import EnvWorker

_MARK = "_vlac_gym_overlap"


class OverlappingEnvWorker(EnvWorker):  # type: ignore[misc]
    """verl-vla's env worker with a step that waits without blocking the actor."""

    @functools.wraps(EnvWorker.env_interact_step)
    async def env_interact_step(self, data: Any, mode: str = "train") -> Any:
        """See `EnvWorker.env_interact_step`."""
        return await asyncio.to_thread(EnvWorker.env_interact_step, self, data, mode=mode)


def overlap_stages(cluster: Any) -> None:
    """Makes the module's `TrainCluster` start `OverlappingEnvWorker`s; safe to call twice."""
    wrap_once(cluster.TrainCluster, "_role_worker_mapping", _MARK, _with_overlap)


def _with_overlap(mapping: Callable[[Any], dict[Any, type]]) -> Callable[[Any], dict[Any, type]]:
    def mapping_with_overlap(self: Any) -> dict[Any, type]:
        return {
            role: OverlappingEnvWorker if worker is EnvWorker else worker
            for role, worker in mapping(self).items()
        }

    return mapping_with_overlap
