"""The process that draws for other processes: `serve_pictures`.

One OpenGL context per GPU draws for all workers. Contexts of several processes take turns on a GPU, and whoever waits
for a turn keeps a core busy; here workers sleep until their picture is there. What has been asked for is drawn before
anything is read, as in a process that draws for itself.
"""

__all__ = ["serve_pictures"]

import importlib
import os
import selectors
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import NamedTuple

from vlac_gym.envs.drawn_state import DrawnState, PictureMemory
from vlac_gym.envs.gl import configure_gl, spread_rendering
from vlac_gym.envs.offscreen import OffscreenPicture, OffscreenRenderer
from vlac_gym.envs.render_messages import (
    GONE,
    AddMemory,
    CloseModel,
    Draw,
    Drawn,
    LoadModel,
    ModelReply,
    OpenModel,
    Reply,
    Request,
)
from vlac_gym.errors import VlacGymError
from vlac_gym.extras import needs

_MOST_IN_FLIGHT = 64
"""Pictures that are drawn before the first of them is read, at most."""


def serve_pictures(lobby: Connection, number: int, render_devices: Sequence[int] | None = None) -> None:
    """Draws for whoever sends a pipe through the lobby, until the lobby's other end or the parent process is gone.

    Args:
        lobby: Brings the descriptor of each worker's pipe.
        number: Position of this process among those that draw.
        render_devices: See `spread_rendering`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process in front decides what Ctrl-C does
    spread_rendering(number, render_devices)
    parent = parent_process()
    _RenderService(lobby, None if parent is None else parent.sentinel).run()


class _RenderService:
    """Reads requests, draws, and replies.

    Args:
        lobby: See `serve_pictures`.
        parent: Descriptor that becomes readable when the parent process ends.
    """

    def __init__(self, lobby: Connection, parent: int | None) -> None:
        self._lobby = lobby
        self._models = _Models(self._reply)
        self._memories: dict[Connection, dict[int, _Place]] = {}
        self._in_flight: deque[_InFlight] = deque()
        self._selector = selectors.DefaultSelector()
        self._selector.register(lobby, selectors.EVENT_READ)
        if parent is not None:
            self._selector.register(parent, selectors.EVENT_READ)

    def run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            for pipe in list(self._memories):
                self._dismiss(pipe)
            self._selector.close()

    def _turn(self) -> bool:
        """One request of each worker that has one, or one picture; False once nobody can want any more."""
        ready = [key.fileobj for key, _ in self._selector.select(0 if self._in_flight else None)]
        for source in ready:
            if source is self._lobby:
                try:
                    self._admit(Connection(recv_handle(self._lobby)))
                except GONE:
                    return False
            elif isinstance(source, Connection):
                self._serve(source)
            else:
                return False
        if self._in_flight and (not ready or len(self._in_flight) > _MOST_IN_FLIGHT):
            self._hand_over(self._in_flight.popleft())
        return True

    def _admit(self, pipe: Connection) -> None:
        self._memories[pipe] = {}
        self._selector.register(pipe, selectors.EVENT_READ)

    def _serve(self, pipe: Connection) -> None:
        try:
            request: Request = pipe.recv()
            file = recv_handle(pipe) if isinstance(request, LoadModel | AddMemory) else -1
        except GONE:
            self._dismiss(pipe)
            return
        try:
            self._carry_out(pipe, request, file)
        finally:
            if file >= 0:
                os.close(file)

    def _carry_out(self, pipe: Connection, request: Request, file: int) -> None:
        match request:
            case OpenModel(key):
                self._models.open(pipe, key)
            case LoadModel(key):
                self._models.load(pipe, key, file)
            case AddMemory(number, key, size):
                model = self._models.loaded(key)
                memory = PictureMemory(file, model.layout, size)
                self._memories[pipe][number] = _Place(key, model, memory, size)
            case Draw(number, camera):
                self._draw(pipe, number, camera)
            case CloseModel(key):
                self._drop(pipe, key)
                self._models.close(pipe, key)

    def _draw(self, pipe: Connection, number: int, camera: str) -> None:
        place = self._memories[pipe][number]
        try:
            picture = place.model.draw(place.memory, camera, place.size)
        except Exception as error:  # noqa: BLE001 (the reply carries it to the worker, who raises it)
            self._reply(pipe, Drawn(number, _told(error)))
        else:
            self._in_flight.append(_InFlight(pipe, number, place, picture))

    def _hand_over(self, drawn: "_InFlight") -> None:
        error = None
        try:
            drawn.place.memory.pixels[...] = drawn.picture.read()
        except Exception as failure:  # noqa: BLE001 (as in `_draw`)
            error = _told(failure)
        self._reply(drawn.pipe, Drawn(drawn.number, error))

    def _reply(self, pipe: Connection, reply: Reply) -> None:
        with suppress(*GONE):  # a later turn reads that it is gone
            pipe.send(reply)

    def _dismiss(self, pipe: Connection) -> None:
        """Frees what a worker had, which is gone."""
        self._selector.unregister(pipe)
        self._drop(pipe, None)
        del self._memories[pipe]
        self._models.forget(pipe)
        pipe.close()

    def _drop(self, pipe: Connection, key: str | None) -> None:
        """Drops a worker's pictures and memories of one model, or of all."""

        def is_meant(place: _Place) -> bool:
            return key is None or place.key == key

        kept: deque[_InFlight] = deque()
        for drawn in self._in_flight:
            if drawn.pipe is pipe and is_meant(drawn.place):
                drawn.picture.drop()
            else:
                kept.append(drawn)
        self._in_flight = kept
        places = self._memories[pipe]
        self._memories[pipe] = {n: place for n, place in places.items() if not is_meant(place)}


class _Models:
    """The models that workers use, each loaded once.

    Args:
        reply: Sends a reply to a worker.
    """

    def __init__(self, reply: Callable[[Connection, Reply], None]) -> None:
        self._reply = reply
        self._loaded: dict[str, _Model] = {}
        self._users: dict[
            str, list[Connection]
        ] = {}  # while it is not loaded, the first of them is to send it

    def loaded(self, key: str) -> "_Model":
        return self._loaded[key]

    def open(self, pipe: Connection, key: str) -> None:
        """Takes a worker on as a user; the reply may have to wait until another one has sent the model."""
        users = self._users.setdefault(key, [])
        users.append(pipe)
        if key in self._loaded:
            self._reply(pipe, ModelReply(key))
        elif len(users) == 1:
            self._reply(pipe, ModelReply(key, is_wanted=True))

    def load(self, pipe: Connection, key: str, file: int) -> None:
        try:
            self._loaded[key] = _Model(file)
        except Exception as error:  # noqa: BLE001 (the reply carries it to the workers, who raise it)
            for user in self._users.pop(key):
                self._reply(user, ModelReply(key, error=_told(error)))
            return
        for user in self._users[key]:
            self._reply(user, ModelReply(key))

    def close(self, pipe: Connection, key: str) -> None:
        """Lets a user go; the last one's model is freed."""
        users = self._users.get(key, [])
        if pipe not in users:
            return
        was_to_send = users[0] is pipe and key not in self._loaded
        users.remove(pipe)
        if not users:
            del self._users[key]
            if key in self._loaded:
                self._loaded.pop(key).renderer.close()
        elif was_to_send:
            self._reply(users[0], ModelReply(key, is_wanted=True))

    def forget(self, pipe: Connection) -> None:
        """Lets a worker go."""
        for key in list(self._users):
            while pipe in self._users.get(key, ()):
                self.close(pipe, key)


class _Model:
    """A model of an XML, which shows whatever state is loaded into it.

    Args:
        file: Descriptor of what ``mj_saveModel`` wrote.
    """

    def __init__(self, file: int) -> None:
        configure_gl()
        with needs("Drawing in a process of its own", "libero"):
            mujoco = importlib.import_module("mujoco")
        self._model = mujoco.MjModel.from_binary_path(f"/proc/self/fd/{file}")
        self._data = mujoco.MjData(self._model)
        self.renderer = OffscreenRenderer(mujoco)
        self.layout = DrawnState(self._model, self._data)

    def draw(self, memory: PictureMemory, camera: str, size: int) -> OffscreenPicture:
        self.layout.load(self._model, self._data, memory.state)
        return self.renderer.draw(self._model, self._data, camera, size)


class _Place(NamedTuple):
    key: str
    model: _Model
    memory: PictureMemory
    size: int


class _InFlight(NamedTuple):
    pipe: Connection
    number: int
    place: _Place
    picture: OffscreenPicture


def _told(error: Exception) -> str:
    """An error as its worker should read it."""
    return str(error) if isinstance(error, VlacGymError) else f"{type(error).__name__}: {error}"
