"""Pictures that a render process draws for this one: `RemoteRenderer` and `RemotePicture`, which stand in for
`OffscreenRenderer` and its pictures, `RenderClient`, the connection they share, and `RenderLine`, how it is made.

A state is copied when it is drawn, so that it may change at once; whoever reads sleeps until the picture is there.
"""

__all__ = ["RemotePicture", "RemoteRenderer", "RenderClient", "RenderLine"]

import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any, NamedTuple

import numpy as np

from vlac_gym.envs.drawn_state import DrawnState, PictureMemory
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
from vlac_gym.errors import SimulatorError
from vlac_gym.types import Frame


class RenderLine(NamedTuple):
    """How a worker reaches its render process.

    Attributes:
        lobby: Takes the process's end of each worker's own pipe.
        name: Of the process, for messages.
    """

    lobby: Connection
    name: str


class RenderClient:
    """This process's pipe to its render process, made on first use.

    Args:
        line: The way there.
    """

    def __init__(self, line: RenderLine) -> None:
        self.lock = threading.RLock()  # of all that follows, and of what the renderers keep
        self._line = line
        self._pipe: Connection | None = None
        self._memories: dict[int, _Memory] = {}
        self._num_memories = 0
        self._model_replies: list[ModelReply] = []

    def send(self, request: Request, file: int | None = None) -> None:
        """Sends a request, and the descriptor that follows it.

        Raises:
            SimulatorError: The render process is gone.
        """
        with self._loss_named():
            pipe = self._connected()
            pipe.send(request)
            if file is not None:
                send_handle(pipe, file, None)

    def ask_for_model(self, request: OpenModel | LoadModel, file: int | None = None) -> ModelReply:
        """Sends a request and waits for its reply.

        Raises:
            SimulatorError: The render process is gone, or cannot load the model.
        """
        self.send(request, file)
        while not self._model_replies:
            self._receive()
        reply = self._model_replies.pop()
        if reply.error is not None:
            raise SimulatorError(reply.error)
        return reply

    def add_memory(self, key: str, layout: DrawnState, size: int) -> "_Memory":
        """Memory for one picture of a model at a time."""
        file = PictureMemory.create(layout, size)
        try:
            self._num_memories += 1
            memory = _Memory(self._num_memories, PictureMemory(file, layout, size))
            self.send(AddMemory(memory.number, key, size), file)
        finally:
            os.close(file)
        self._memories[memory.number] = memory
        return memory

    def forget_memory(self, memory: "_Memory") -> None:
        """Replies for it mean nothing any more."""
        self._memories.pop(memory.number, None)

    def wait_for(self, memory: "_Memory") -> None:
        """Sleeps until a picture is in its memory.

        Raises:
            SimulatorError: The render process is gone.
        """
        while memory.is_drawing:
            self._receive()

    def take_what_is_there(self) -> None:
        """Takes replies that have come, without waiting."""
        with self._loss_named():
            while self._pipe is not None and self._pipe.poll():
                self._receive()

    def _receive(self) -> None:
        with self._loss_named():
            reply: Reply = self._connected().recv()
        if isinstance(reply, ModelReply):
            self._model_replies.append(reply)
        elif reply.number in self._memories:
            self._memories[reply.number].finish(reply)

    def _connected(self) -> Connection:
        if self._pipe is None:
            self._pipe, theirs = Pipe()
            with closing(theirs):
                send_handle(self._line.lobby, theirs.fileno(), None)
        return self._pipe

    @contextmanager
    def _loss_named(self) -> Iterator[None]:
        try:
            yield
        except GONE as error:
            raise SimulatorError(
                f"The {self._line.name} is gone, which drew this worker's pictures. Call reset, which starts another. "
                "If it happens again, check the machine's and the GPU's memory, or use render_processes=0."
            ) from error


class RemoteRenderer:
    """`OffscreenRenderer`, in the render process: models of one XML.

    Args:
        mujoco: The imported module.
        key: Tells this XML from others; workers with the same one share meshes and textures.
        client: The connection.
    """

    def __init__(self, mujoco: Any, key: str, client: RenderClient) -> None:
        self._mujoco = mujoco
        self._key = key
        self._client = client
        self._layout: DrawnState | None = None
        self._memories: dict[int, list[_Memory]] = {}  # by size of the picture, in use and idle

    def draw(self, model: Any, data: Any, camera: str, size: int) -> "RemotePicture":
        """Has a camera's view of a state drawn; model and state may change at once.

        Args:
            model: An ``MjModel``; the first one is sent over.
            data: The ``MjData`` to show; its positions must be computed.
            camera: A camera's name in the model.
            size: Side of the picture in pixels.

        Raises:
            SimulatorError: The render process is gone, or cannot load the model.
        """
        model.camera(camera)  # refuses an unknown name here
        with self._client.lock:
            layout = self._open(model, data)
            memory = self._idle_memory(layout, size)
            layout.save(model, data, memory.shared.state)
            memory.begin()
            self._client.send(Draw(memory.number, camera))
        return RemotePicture(self._client, memory)

    def close(self) -> None:
        """Lets go of meshes, textures and memories; the next `draw` sends the model again. Safe to call twice."""
        with self._client.lock:
            if self._layout is None:
                return
            self._layout = None
            for memory in (memory for memories in self._memories.values() for memory in memories):
                memory.is_closed = True
                self._client.forget_memory(memory)
            self._memories = {}
            with suppress(SimulatorError):  # all of it went with the render process
                self._client.send(CloseModel(self._key))

    def _open(self, model: Any, data: Any) -> DrawnState:
        if self._layout is None:
            if self._client.ask_for_model(OpenModel(self._key)).is_wanted:
                with _saved(self._mujoco, model) as file:
                    self._client.ask_for_model(LoadModel(self._key), file)
            self._layout = DrawnState(model, data)
        return self._layout

    def _idle_memory(self, layout: DrawnState, size: int) -> "_Memory":
        self._client.take_what_is_there()
        memories = self._memories.setdefault(size, [])
        for memory in memories:
            if memory.is_idle:
                return memory
        memories.append(self._client.add_memory(self._key, layout, size))
        return memories[-1]


class RemotePicture:
    """A picture that the render process draws; to be read or dropped, once.

    Args:
        client: The connection.
        memory: Where the picture comes.
    """

    def __init__(self, client: RenderClient, memory: "_Memory") -> None:
        self._client = client
        self._memory = memory

    def read(self) -> Frame:
        """Sleeps until the picture is there.

        Returns:
            uint8 (size, size, 3), RGB, upright.

        Raises:
            SimulatorError: It cannot be drawn, the render process is gone, or the renderer was closed.
        """
        memory = self._memory
        with self._client.lock:
            if memory.is_closed:
                raise SimulatorError("The renderer was closed before its picture was read. Read it first.")
            self._client.wait_for(memory)
            memory.is_claimed = False
            if memory.error is not None:
                raise SimulatorError(memory.error)
            return memory.shared.pixels.copy()

    def drop(self) -> None:
        """Gives the picture up."""
        with self._client.lock:
            self._memory.is_claimed = False


class _Memory:
    """A `PictureMemory` on this side.

    Attributes:
        is_drawing: The render process has it.
        is_claimed: Somebody will read what comes.
        is_closed: Nothing comes any more.
        error: Why the latest picture could not be drawn.
    """

    def __init__(self, number: int, shared: PictureMemory) -> None:
        self.number = number
        self.shared = shared
        self.is_drawing = self.is_claimed = self.is_closed = False
        self.error: str | None = None

    @property
    def is_idle(self) -> bool:
        return not (self.is_drawing or self.is_claimed)

    def begin(self) -> None:
        self.is_drawing = self.is_claimed = True

    def finish(self, drawn: Drawn) -> None:
        self.is_drawing, self.error = False, drawn.error


@contextmanager
def _saved(mujoco: Any, model: Any) -> Iterator[int]:
    """Descriptor of memory that holds a model, as long as somebody has it open."""
    num_bytes = mujoco.mj_sizeModel(model)
    file = os.memfd_create("vlac-gym-model")
    try:
        os.ftruncate(file, num_bytes)
        with mmap.mmap(file, num_bytes) as memory:
            mujoco.mj_saveModel(model, None, np.frombuffer(memory, np.uint8))
        yield file
    finally:
        os.close(file)
