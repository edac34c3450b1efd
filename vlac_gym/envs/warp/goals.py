"""LIBERO's goals, judged on the device, in each world its own task's: `Goals`."""

__all__ = ["Goals"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.envs.warp.scene_files import GET_WARP
from vlac_gym.extras import needs

with needs("Simulating on a GPU", get=GET_WARP):
    import warp as wp

from vlac_gym.envs.warp import goal_kernels as kernels

_NO_SITE = -1


class Goals:
    """The goals of worlds on warp's current device.

    Args:
        num_geoms: In the model.
        tasks: `SceneFiles.task` of each task.
        task_of_world: int32 (N,), where in `tasks` each world's is.

    Attributes:
        success: int (N,), 1 where the goal held.
    """

    def __init__(
        self, num_geoms: int, tasks: Sequence[Mapping[str, Any]], task_of_world: NDArray[np.int32]
    ) -> None:
        self.success = wp.zeros(len(task_of_world), dtype=int)
        self._touching = wp.zeros(len(task_of_world), dtype=int)
        self._by_touch = any(task["goal"] == "on" for task in tasks)
        sides = np.zeros((len(tasks), num_geoms), np.int32)
        for task, side in zip(tasks, sides, strict=True):
            for number, geoms in enumerate(task["goal_geoms"]):
                side[geoms] = number + 1
        table = self._table = kernels.GoalTable()
        table.task = wp.array(task_of_world, dtype=int)
        table.moved = wp.array([task["goal_bodies"][0] for task in tasks], dtype=int)
        table.target = wp.array([task["goal_bodies"][-1] for task in tasks], dtype=int)
        table.site = wp.array([task.get("goal_site", _NO_SITE) for task in tasks], dtype=int)
        table.size = wp.array([task.get("goal_size", (0.0, 0.0, 0.0)) for task in tasks], dtype=wp.vec3)
        table.side = wp.array(sides, dtype=int)

    def judge(self, d: Any) -> None:
        """LIBERO's verdict on the present states."""
        if self._by_touch:
            found = [d.nacon, self._table, d.contact.geom, d.contact.worldid, self._touching]
            wp.launch(kernels.find_touching, d.naconmax, found)
        places = (d.xpos, d.site_xpos, d.site_xmat)
        wp.launch(kernels.judge, len(self.success), [self._table, *places, self._touching, self.success])
