"""Points as worlds whose pictures are torch tensors: `TensorWorlds`, and `point_envs`, with tensors or with arrays."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from point_worlds import SIZE, TASK, PointWorlds

from vlac_gym.vector.warp_executor import WarpExecutor, WarpSeat

CAMERAS = ("agentview", "wrist")


class TensorWorlds(PointWorlds):
    """Points whose pictures are tensors on a device; each look draws over the last one's."""

    def __init__(self, num_worlds: int, device: str) -> None:
        super().__init__(num_worlds)
        shape = (num_worlds, SIZE, SIZE, 3)
        self.drawn = {name: torch.zeros(shape, dtype=torch.uint8, device=device) for name in self.num_draws}

    def pictures(self, cameras: Sequence[str]) -> list[Any]:
        for name, picture in zip(cameras, super().pictures(cameras), strict=True):
            self.drawn[name].copy_(torch.from_numpy(picture))
        return [self.drawn[name] for name in cameras]


def point_envs(device: str | None, tasks: Sequence[Any], limit: int | None = None) -> tuple[list[Any], Any]:
    """What `RolloutVectorEnv` takes for points as worlds: with tensors on a device, or with arrays."""

    def make(num_worlds: int) -> Any:
        return TASK, PointWorlds(num_worlds) if device is None else TensorWorlds(num_worlds, device)

    def executor(fns: Any, spaces: Any, **_: Any) -> WarpExecutor:
        makers = dict.fromkeys(tasks, make)
        return WarpExecutor(tasks, makers, spaces, cameras=CAMERAS, step_limit=limit, torch_device=device)

    return [partial(WarpSeat, CAMERAS, SIZE)] * len(tasks), executor
