"""The process of a few envs: `Worker` on this side, `serve_slots` on the other; `share`, `core_of` and
`single_threaded` for how it is started.
"""

__all__ = ["Worker", "WorkerPlace", "core_of", "serve_slots", "share", "single_threaded"]

import contextlib
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

import cloudpickle

from vlac_gym.envs.gl import spread_rendering
from vlac_gym.vector.commands import Command, Reply, StepCommand
from vlac_gym.vector.executor import EnvFactory
from vlac_gym.vector.observations import view
from vlac_gym.vector.slot import EnvSlot

_GONE = (EOFError, OSError)
"""What a pipe raises when the process at its other end is gone."""

_STOP = (0, None)

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What numpy's and PyTorch's libraries read, once, when they are loaded."""

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


class WorkerPlace(NamedTuple):
    """Where a worker process runs and draws.

    Attributes:
        number: Position among the workers.
        render_devices: See `spread_rendering`.
        core: Where to run; None for anywhere.
        niceness: What is added to that of the process which starts it.
    """

    number: int
    render_devices: Sequence[int] | None
    core: int | None
    niceness: int


def serve_slots(
    pipe: Connection,
    env_fns: Any,
    spaces: Any,
    memory: Any,
    num_envs: int,
    place: WorkerPlace,
) -> None:
    """Carries out commands until told to stop, or until the other side is gone.

    Args:
        pipe: Brings (ticket, {env index: command}) and takes (ticket, env index, reply) of each as soon as it is there,
            after a first ticket that says it is ready. A reply of None says that the command is carried out but for
            the pictures.
        env_fns: {env index: env factory}, shared.
        spaces: One env's spaces, shared.
        memory: Shared memory of all envs' observations.
        num_envs: Its number of rows.
        place: Of this process.
    """
    # Ctrl-C reaches every process of the terminal; the one in front decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if place.core is not None:
        os.sched_setaffinity(0, {place.core})
    if place.niceness and hasattr(os, "nice"):
        os.nice(place.niceness)
    spread_rendering(place.number, place.render_devices)
    env_spaces = pickle.loads(spaces.raw)
    batch = view(env_spaces.observation, num_envs, memory, is_shared=True)
    slots = {i: EnvSlot(fn, env_spaces, batch, i) for i, fn in pickle.loads(env_fns.raw).items()}
    try:
        with contextlib.suppress(*_GONE):
            pipe.send((_READY, -1, None))
            _serve(pipe, slots)
    finally:
        for slot in slots.values():
            slot.close()
        pipe.close()


def _serve(pipe: Connection, slots: Mapping[int, EnvSlot]) -> None:
    """Carries out commands until told to stop; while an env's pictures are drawn, the next env moves.

    No reply waits for another env's reset or call, which may build a simulator. One that waits for another env's step
    is announced, so that each command has its own deadline on the other side.
    """
    drawn: tuple[int, int, Callable[[], Reply]] | None = None  # the latest command, whose reply is to be sent

    def send_drawn() -> None:
        nonlocal drawn
        if drawn is not None:
            ticket, i, reply = drawn
            drawn = None
            pipe.send((ticket, i, reply()))

    while True:
        if not pipe.poll():
            send_drawn()
        ticket, commands = pipe.recv()
        if commands is None:
            return
        for i, command in commands.items():
            if drawn is not None and drawn[1] != i and isinstance(command, StepCommand):
                pipe.send((drawn[0], drawn[1], None))
            else:  # of this env, whose picture is of the state before this command, or before what may take long
                send_drawn()
            reply = slots[i].start(command)
            send_drawn()
            drawn = ticket, i, reply


def core_of(number: int) -> int | None:
    """The core of worker `number`, in turn among those that this process may use; None where that can't be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[number % len(allowed)]


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Has processes that start in it use one thread each for linear algebra, unless the user chose: there are as many
    processes as cores, whose threads would wait for one another.
    """
    names = [name for name in _THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)


class Worker:
    """A process that serves a few slots, and the pipe to it.

    Args:
        context: Starts the process.
        env_fns: {env index: env factory}; pickled by cloudpickle.
        spaces: One env's spaces, as `share` gives them.
        memory: Shared memory from `observations.allocate`.
        num_envs: Its number of rows.
        place: Of the process.
    """

    def __init__(
        self,
        context: BaseContext,
        env_fns: Mapping[int, EnvFactory],
        spaces: Any,
        memory: Any,
        num_envs: int,
        place: WorkerPlace,
    ) -> None:
        self.indices = tuple(env_fns)
        self._context = context
        self._arguments = (share(context, dict(env_fns)), spaces, memory, num_envs)
        self._place = place
        self._ticket = _READY
        self._tickets: dict[int, int] = {}  # by env, of its latest command
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

    @property
    def handles(self) -> tuple[Any, ...]:
        """What becomes readable when there is something to receive, or the process is gone."""
        return self._pipe, self._process.sentinel

    def send(self, commands: Mapping[int, Command]) -> bool:
        """Hands out commands, behind those that are out; False if the process is gone."""
        self._ticket += 1
        self._tickets |= dict.fromkeys(commands, self._ticket)
        try:
            self._pipe.send((self._ticket, dict(commands)))
        except _GONE:
            return False
        return True

    def receive(self, deadline_s: float) -> dict[int, Reply] | str:
        """Waits for the next reply.

        Args:
            deadline_s: On the clock of `time.monotonic`.

        Returns:
            The reply, nothing if it was one that nobody waits for any more, or why there will be none.
        """
        message = self._message(deadline_s)
        if isinstance(message, str):
            return message
        ticket, i, reply = message
        # An older ticket says that it is ready, or was given up by an interrupted wait; None, that a reply is to come.
        return {i: reply} if reply is not None and ticket == self._tickets.get(i) else {}

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

    def _message(self, deadline_s: float) -> tuple[int, int, Reply | None] | str:
        """The process's next message, or why there will be none."""
        if self._pipe.closed:
            return "an interrupt came in the middle of its last reply"
        try:
            if not self._pipe.poll():
                left_s = deadline_s - time.monotonic()
                if not wait([self._pipe, self._process.sentinel], timeout=max(0.0, left_s)):
                    return "no reply before the deadline"
            # A reply that was sent before the process died still counts.
            if self._pipe.poll():
                message: tuple[int, int, Reply | None] = self._pipe.recv()
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
            target=serve_slots,
            args=(theirs, *self._arguments, self._place),
            daemon=True,
            name=f"vlac-gym-{self.indices}",
        )
        with single_threaded():
            self._process.start()
        theirs.close()  # else the end of the process would not close the pipe

    def _discard(self) -> None:
        self._pipe.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()
