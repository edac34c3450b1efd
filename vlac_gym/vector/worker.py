"""The process of a few envs: `Worker` on this side, `serve_slots` on the other; `share` for what it is started with."""

__all__ = ["Worker", "serve_slots", "share"]

import contextlib
import pickle
import signal
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any

import cloudpickle

from vlac_gym.envs.gl import spread_rendering
from vlac_gym.vector.commands import Command, Reply
from vlac_gym.vector.executor import EnvFactory
from vlac_gym.vector.observations import view
from vlac_gym.vector.slot import EnvSlot

_GONE = (EOFError, OSError)
"""What a pipe raises when the process at its other end is gone."""

_STOP = (0, None)

_READY = 0
"""Ticket of a worker's first message: it runs, and waits for commands."""


def share(context: BaseContext, value: Any) -> Any:
    """`value`, pickled, in anonymous shared memory for processes of this context.

    A process that is started with more than a pipe holds (64 KiB) and dies before it has read all of it would block
    its parent for ever.
    """
    pickled = cloudpickle.dumps(value)
    memory = context.RawArray("c", len(pickled))
    memory.raw = pickled
    return memory


def serve_slots(
    pipe: Connection,
    env_fns: Any,
    observation_space: Any,
    memory: Any,
    num_envs: int,
    number: int = 0,
    render_devices: Sequence[int] | None = None,
) -> None:
    """Carries out commands until told to stop, or until the other side is gone.

    Args:
        pipe: Brings (ticket, {env index: command}) and takes (ticket, {env index: reply}), after a first ticket that
            says it is ready.
        env_fns: {env index: env factory}, shared.
        observation_space: One env's observation space, shared.
        memory: Shared memory of all envs' observations.
        num_envs: Its number of rows.
        number: Position of this process among the workers.
        render_devices: See `spread_rendering`.
    """
    # Ctrl-C reaches every process of the terminal; the one in front decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spread_rendering(number, render_devices)
    space = pickle.loads(observation_space.raw)
    batch = view(space, num_envs, memory, is_shared=True)
    slots = {i: EnvSlot(fn, space, batch, i) for i, fn in pickle.loads(env_fns.raw).items()}
    try:
        with contextlib.suppress(*_GONE):
            pipe.send((_READY, {}))
            while True:
                ticket, commands = pipe.recv()
                if commands is None:
                    break
                pipe.send((ticket, {i: slots[i].run(command) for i, command in commands.items()}))
    finally:
        for slot in slots.values():
            slot.close()
        pipe.close()


class Worker:
    """A process that serves a few slots, and the pipe to it.

    Args:
        context: Starts the process.
        env_fns: {env index: env factory}; pickled by cloudpickle.
        observation_space: One env's observation space, as `share` gives it.
        memory: Shared memory from `observations.allocate`.
        num_envs: Its number of rows.
        number: Position of this process among the workers.
        render_devices: See `spread_rendering`.
    """

    def __init__(
        self,
        context: BaseContext,
        env_fns: Mapping[int, EnvFactory],
        observation_space: Any,
        memory: Any,
        num_envs: int,
        number: int = 0,
        render_devices: Sequence[int] | None = None,
    ) -> None:
        self.indices = tuple(env_fns)
        self._context = context
        self._arguments = (
            share(context, dict(env_fns)),
            observation_space,
            memory,
            num_envs,
            number,
            render_devices,
        )
        self._ticket = _READY
        self._start()

    @property
    def pid(self) -> int:
        """The process id."""
        pid: int = self._process.pid
        return pid

    @property
    def exit_code(self) -> int | None:
        """The process's exit code, negative for a signal; None while it runs."""
        code: int | None = self._process.exitcode
        return code

    def wait_until_ready(self, deadline_s: float) -> bool:
        """Waits until the process can serve; False if it died, or the deadline passed.

        Args:
            deadline_s: On the clock of `time.monotonic`.
        """
        return not isinstance(self._message(deadline_s), str)

    def send(self, commands: Mapping[int, Command]) -> bool:
        """Hands out commands; False if the process is gone."""
        self._ticket += 1
        try:
            self._pipe.send((self._ticket, dict(commands)))
        except _GONE:
            return False
        return True

    def receive(self, deadline_s: float) -> dict[int, Reply] | str:
        """Waits for the replies of the latest commands.

        Args:
            deadline_s: On the clock of `time.monotonic`.

        Returns:
            The replies, or why there will be none.
        """
        while True:
            message = self._message(deadline_s)
            if isinstance(message, str):
                return message
            ticket, replies = message
            if (
                ticket == self._ticket
            ):  # an older one says that it is ready, or was given up by an interrupted wait
                return replies

    def restart(self) -> None:
        """Kills the process, if it still runs, and starts a new one."""
        self._discard()
        self._start()

    def ask_to_stop(self) -> None:
        """Asks the process to end by itself; `stop` must follow."""
        with contextlib.suppress(*_GONE):
            self._pipe.send(_STOP)

    def stop(self, deadline_s: float) -> None:
        """Waits for the process to end by itself until the deadline, then kills it."""
        self._process.join(max(0.0, deadline_s - time.monotonic()))
        self._discard()

    def _message(self, deadline_s: float) -> tuple[int, dict[int, Reply]] | str:
        """The process's next message, or why there will be none."""
        if self._pipe.closed:
            return "an interrupt came in the middle of its last reply"
        left_s = deadline_s - time.monotonic()
        ready = wait([self._pipe, self._process.sentinel], timeout=max(0.0, left_s))
        if not ready:
            return "no reply before the deadline"
        try:
            # A reply that was sent before the process died still counts.
            if self._pipe in ready or self._pipe.poll():
                message: tuple[int, dict[int, Reply]] = self._pipe.recv()
                return message
        except _GONE:
            pass
        except BaseException:
            self._pipe.close()  # half a message may be left in it
            raise
        self._process.join(1.0)
        return f"the worker process died with exit code {self._process.exitcode}"

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(  # type: ignore[attr-defined]
            target=serve_slots, args=(theirs, *self._arguments), daemon=True, name=f"vlac-gym-{self.indices}"
        )
        self._process.start()
        theirs.close()  # else the end of the process would not close the pipe

    def _discard(self) -> None:
        self._pipe.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()
