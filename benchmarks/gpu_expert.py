"""The package's expert in closed loop on mujoco-warp's worlds: `Experts`, `solve`.

The expert reads LIBERO's scene, which needs another MuJoCo than mujoco-warp: processes of gpu_expert_server.py hold it.
"""

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from vlac_gym.envs.warp.worlds import WarpWorlds

SERVER = Path(__file__).with_name("gpu_expert_server.py")
ACTION_SIZE = 7


class Experts:
    """One expert per world, in processes that divide the worlds among them; a context manager.

    Args:
        python: An interpreter with vlac-gym[libero].
        path: Its PYTHONPATH.
        task: A recording's `task.json`.
        num_worlds: World i begins in initial state i.
        num_processes: At most so many.
    """

    def __init__(
        self, python: str, path: str, task: dict[str, Any], num_worlds: int, num_processes: int
    ) -> None:
        environment = dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS="1")
        environment.setdefault("MUJOCO_GL", "egl")
        self._shares = np.array_split(np.arange(num_worlds), min(num_processes, num_worlds))
        command = [python, str(SERVER), "--suite", task["suite"], "--task", str(task["task_id"])]
        self._processes = [
            subprocess.Popen(
                [*command, "--init-states", *map(str, share)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
            for share in self._shares
        ]

    def __enter__(self) -> "Experts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def act(self, states: np.ndarray) -> np.ndarray:
        """Actions, float64 (N, 7), for states: qpos and qvel, (N, nq + nv)."""
        for process, share in zip(self._processes, self._shares, strict=True):
            try:
                _pipe(process.stdin).write(states[share].astype(np.float64).tobytes())
                _pipe(process.stdin).flush()
            except BrokenPipeError:
                pass  # its missing reply says so
        replies = [self._reply(*pair) for pair in zip(self._processes, self._shares, strict=True)]
        return np.concatenate(replies)

    def _reply(self, process: "subprocess.Popen[bytes]", share: np.ndarray) -> np.ndarray:
        size = 8 * len(share) * ACTION_SIZE
        reply = _pipe(process.stdout).read(size)
        if len(reply) < size:
            raise SystemExit(
                f"The expert's process for worlds {share[0]} to {share[-1]} ended with {process.wait()} before its "
                "actions came; see what it wrote above, and --expert, --expert-path."
            )
        return np.frombuffer(reply).reshape(-1, ACTION_SIZE)


def _pipe(pipe: Any) -> Any:
    assert pipe is not None
    return pipe


def solve(worlds: "WarpWorlds", starts: dict[str, np.ndarray], experts: Experts, limit: int) -> np.ndarray:
    """Env steps after which each world's goal held first, -1 where it did not within `limit`: (N,)."""
    worlds.start_from(starts)
    first = np.full(worlds.num_worlds, -1)
    for step in range(1, limit + 1):
        states = np.concatenate([worlds.data.qpos.numpy(), worlds.data.qvel.numpy()], axis=1)
        worlds.step(experts.act(states))
        first[worlds.success() & (first < 0)] = step
        if (first >= 0).all():
            break
    return first
