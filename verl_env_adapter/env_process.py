"""An `EpisodeEnv` in a process of its own: `EnvProcess`. Run as a module, this file is that process.

MuJoCo's OpenGL contexts belong to one process and one thread, and a simulator step holds the interpreter: a
trainer's event loop must do neither.
"""

__all__ = ["EnvProcess"]

import itertools
import os
import pickle
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import Any

from verl_env_adapter.episode_env import EnvReport, EpisodeEnv
from verl_env_adapter.settings import AdapterSettings
from vlac_gym.envs.gl import spread_rendering
from vlac_gym.errors import SimulatorError, VlacGymError
from vlac_gym.types import Mode

_CLOSE_TIMEOUT_S = 10.0

_numbers = itertools.count()
"""Tells the processes of one parent apart, for the GPU that each renders on."""


class EnvProcess:
    """Starts the process at once and the simulator at the first reset; each call blocks until its deadline.

    One thread at a time may use it. A call that runs out of time, or a process that dies, ends the process and
    raises `SimulatorError`: make a new one.

    Args:
        settings: The trainer's block.
    """

    def __init__(self, settings: AdapterSettings) -> None:
        ours, theirs = socket.socketpair()
        environment = {
            "OMP_NUM_THREADS": "1",
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "verl_env_adapter.env_process", str(theirs.fileno()), str(next(_numbers))],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._connection: Connection[Any, Any] = Connection(ours.detach())
        self._settings = settings
        self._started_tasks: set[int | None] = set()
        self._is_closed = False
        self._connection.send(settings)

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Can it still be called?"""
        return not self._is_closed and self._process.poll() is None

    def reset(
        self,
        *,
        mode: Mode,
        seed: int | None = None,
        task_id: int | None = None,
        init_state_id: int | None = None,
    ) -> EnvReport:
        """See `EpisodeEnv.reset`; a task's first reset may take `start_timeout_s`."""
        placement = self._settings.placement
        is_warm = task_id in self._started_tasks
        timeout_s = placement.step_timeout_s if is_warm else placement.start_timeout_s
        options = {"mode": mode, "seed": seed, "task_id": task_id, "init_state_id": init_state_id}
        report = self._call("reset", options, timeout_s)
        self._started_tasks.add(task_id)
        return report

    def step_chunk(self, actions: Any) -> EnvReport:
        """See `EpisodeEnv.step_chunk`."""
        return self._call("step_chunk", {"actions": actions}, self._settings.placement.step_timeout_s)

    def close(self) -> None:
        """Ends the process, kindly if it listens; safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._connection.close()  # The process sees the end of its input and closes its env.
        try:
            self._process.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _call(self, name: str, options: dict[str, Any], timeout_s: float) -> EnvReport:
        if self._is_closed:
            raise SimulatorError("The env process is closed. Make a new one.")
        try:
            self._connection.send((name, options))
            if not self._connection.poll(timeout_s):
                self._kill()
                raise SimulatorError(
                    f"The env process (pid {self.pid}) gave no answer to {name} in {timeout_s:.0f} s and was ended. "
                    "Raise placement.step_timeout_s or start_timeout_s if the machine is slow."
                )
            status, result = self._connection.recv()
        except (EOFError, ConnectionError, BrokenPipeError) as e:
            self._kill()
            raise SimulatorError(
                f"The env process (pid {self.pid}) died during {name} with exit status {self._process.returncode}; "
                "see its messages above. Out of memory is the usual reason."
            ) from e
        if status == "error":
            raise result
        report: EnvReport = result
        return report

    def _kill(self) -> None:
        self._is_closed = True
        self._connection.close()
        self._process.kill()
        self._process.wait()


def _serve(connection: "Connection[Any, Any]") -> None:
    settings: AdapterSettings = connection.recv()
    env: EpisodeEnv | None = None
    try:
        while True:
            name, options = connection.recv()
            try:
                if env is None:
                    env = EpisodeEnv(settings, host_deadline_s=settings.placement.step_timeout_s)
                connection.send(("ok", getattr(env, name)(**options)))
            except Exception as e:  # noqa: BLE001 (everything goes to the parent, which raises it)
                connection.send(("error", _portable(e)))
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return
    finally:
        if env is not None:
            env.close()


def _portable(error: Exception) -> Exception:
    """The error itself if it survives pickling, else one of ours that tells of it."""
    if isinstance(error, VlacGymError):
        return error
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 (any failure means the same)
        return SimulatorError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    spread_rendering(int(sys.argv[2]))
    _serve(Connection(int(sys.argv[1])))
