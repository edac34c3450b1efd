"""Points as worlds whose pictures are torch tensors: `TensorWorlds`, and `point_envs`, with tensors or with arrays."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from point_worlds import OTHER_TASK, SIZE, TASK, PointWorlds

from vlac_gym.vector.warp_executor import WarpExecutor, WarpSeat, WorldBatch

CAMERAS = ("agentview", "wrist")


class TensorWorlds(PointWorlds):
    """Points whose pictures are tensors on a device; each look draws over the last one's."""

    def __init__(self, tasks: Sequence[Any], device: str) -> None:
        super().__init__(tasks)
        shape = (self.num_worlds, SIZE, SIZE, 3)
        self.drawn = {name: torch.zeros(shape, dtype=torch.uint8, device=device) for name in self.num_draws}

    def pictures(self, cameras: Sequence[str]) -> list[Any]:
        for name, picture in zip(cameras, super().pictures(cameras), strict=True):
            self.drawn[name].copy_(torch.from_numpy(picture))
        return [self.drawn[name] for name in cameras]


def point_envs(device: str | None, tasks: Sequence[Any], limit: int | None = None) -> tuple[list[Any], Any]:
    """What `RolloutVectorEnv` takes for points as worlds: with tensors on a device, or with arrays."""

    def batch(envs: np.ndarray) -> WorldBatch:
        facts = [OTHER_TASK if tasks[env][1] == OTHER_TASK["task_id"] else TASK for env in envs]
        return WorldBatch(envs, facts, PointWorlds(facts) if device is None else TensorWorlds(facts, device))

    def executor(fns: Any, spaces: Any, **_: Any) -> WarpExecutor:
        rows = [np.flatnonzero([each == task for each in tasks]) for task in dict.fromkeys(tasks)]
        options = {"cameras": CAMERAS, "step_limit": limit, "torch_device": device}
        return WarpExecutor(map(batch, rows), spaces, len(tasks), **options)

    return [partial(WarpSeat, CAMERAS, SIZE)] * len(tasks), executor
