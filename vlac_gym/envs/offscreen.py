"""Pictures through one OpenGL context per process: `OffscreenRenderer`, and `Picture`, which is on its way.

OpenGL's objects belong to the context that was current when they were made, and a context can be current in one
thread at a time. So there is one context, every model's meshes and textures live in it, and a thread has it only
while it draws or frees: pictures and `close` may come from any thread, in any order.

Drawing and reading are two steps, for GPUs that several processes draw on: where such a GPU serves them in turn,
whoever reads waits for its turn, and pictures that were all drawn before the first is read should take one together.
"""

__all__ = ["OffscreenRenderer", "Picture"]

import atexit
import ctypes
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import SimulatorError
from vlac_gym.extras import needs
from vlac_gym.types import Frame

_MAX_GEOMS = 1000  # robosuite's `MjRenderContext`


class OffscreenRenderer:
    """One model's meshes and textures in OpenGL, uploaded at the first picture.

    Args:
        mujoco: The imported module.
    """

    def __init__(self, mujoco: Any) -> None:
        self._mujoco = mujoco
        self._textures: Any = None
        self._scene: Any = None
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        # What robosuite shows: visual meshes (group 1), no collision meshes (group 0).
        self._option = mujoco.MjvOption()
        self._option.geomgroup[0] = 0
        self._option.geomgroup[1] = 1

    def draw(self, model: Any, data: Any, camera: str, size: int) -> "Picture":
        """Has a camera's view of a state drawn; the state may change at once.

        Args:
            model: An ``MjModel``; its meshes and textures must be those of the first call.
            data: The ``MjData`` to show; its positions must be computed.
            camera: A camera's name in the model.
            size: Side of the picture in pixels.

        Returns:
            The picture, to be read before `close`.

        Raises:
            SimulatorError: OpenGL cannot be started, this process was forked from one that had started it, or OpenGL
                cannot copy the picture, e.g. for lack of memory.
        """
        mujoco = self._mujoco
        with _process_gl.current(), _gl_errors_named():
            self._prepare(model, size)
            self._camera.fixedcamid = model.camera(camera).id
            mujoco.mjv_updateScene(
                model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
            )
            view = mujoco.MjrRect(0, 0, size, size)
            mujoco.mjr_render(view, self._scene, self._textures)
            return Picture(_process_gl.buffers, _process_gl.buffers.fill(self._textures, size), size)

    def close(self) -> None:
        """Frees the meshes and textures; the next `draw` uploads them again. Safe to call twice."""
        textures, self._textures, self._scene = self._textures, None, None
        if textures is not None:
            _process_gl.free(textures)

    def _prepare(self, model: Any, size: int) -> None:
        mujoco = self._mujoco
        if self._textures is None:
            try:
                self._textures = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
            except mujoco.FatalError as error:
                raise _cannot_start(error) from error
            _process_gl.uploads.append(self._textures)
            self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        width, height = self._textures.offWidth, self._textures.offHeight
        if min(width, height) < size:
            mujoco.mjr_resizeOffscreen(max(width, size), max(height, size), self._textures)
        # The framebuffer in force may be another upload's, which had it last.
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._textures)


class Picture:
    """A picture that is being drawn; to be read or dropped, once.

    Args:
        buffers: Those of the context that draws it.
        buffer: The one it goes to.
        size: Its side in pixels.
    """

    def __init__(self, buffers: "_PixelBuffers", buffer: int, size: int) -> None:
        self._buffers = buffers
        self._buffer = buffer
        self._size = size

    def read(self) -> Frame:
        """Waits for the picture.

        Returns:
            uint8 (size, size, 3), RGB, upright.

        Raises:
            SimulatorError: All renderers were closed since it was drawn, this process was forked since, or OpenGL
                cannot hand the picture over.
        """
        with _process_gl.current(), _gl_errors_named():
            if self._buffers is not _process_gl.buffers:
                raise SimulatorError("The renderer was closed before its picture was read. Read it first.")
            picture = self._buffers.take(self._buffer, self._size)
        return np.ascontiguousarray(picture[::-1])  # OpenGL's rows run upwards

    def drop(self) -> None:
        """Gives the picture up."""
        self._buffers.release(self._buffer, self._size)


class _PixelBuffers:
    """OpenGL's buffers that pictures are copied into while the program goes on, reused by size.

    They belong to the context, and go with it.
    """

    def __init__(self) -> None:
        self._idle: dict[int, list[int]] = {}  # by side of the picture

    def fill(self, textures: Any, size: int) -> int:
        """Has the lower left corner of an upload's framebuffer copied to a buffer, as ``mjr_readPixels`` reads it."""
        gl = _library("OpenGL.GL")
        gl.glGetError()  # PyOpenGL would raise one that MuJoCo's drawing left, which MuJoCo and its own readers ignore
        if textures.offSamples:
            gl.glBindFramebuffer(gl.GL_READ_FRAMEBUFFER, textures.offFBO)
            gl.glBindFramebuffer(gl.GL_DRAW_FRAMEBUFFER, textures.offFBO_r)
            corners = (0, 0, size, size)
            gl.glBlitFramebuffer(*corners, *corners, gl.GL_COLOR_BUFFER_BIT, gl.GL_NEAREST)
            gl.glBindFramebuffer(gl.GL_READ_FRAMEBUFFER, textures.offFBO_r)
        idle = self._idle.setdefault(size, [])
        buffer = idle.pop() if idle else self._new(gl, size)
        gl.glBindBuffer(gl.GL_PIXEL_PACK_BUFFER, buffer)
        gl.glPixelStorei(gl.GL_PACK_ALIGNMENT, 1)
        gl.glReadPixels(0, 0, size, size, gl.GL_RGB, gl.GL_UNSIGNED_BYTE, ctypes.c_void_p(0))
        gl.glBindBuffer(gl.GL_PIXEL_PACK_BUFFER, 0)  # else mjr_readPixels would write there
        gl.glFlush()
        return buffer

    def take(self, buffer: int, size: int) -> NDArray[np.uint8]:
        """Waits for what was copied to a buffer, which is idle then: uint8 (size, size, 3), rows upwards."""
        gl = _library("OpenGL.GL")
        gl.glGetError()  # as in `fill`
        pixels = np.empty((size, size, 3), dtype=np.uint8)
        gl.glBindBuffer(gl.GL_PIXEL_PACK_BUFFER, buffer)
        gl.glGetBufferSubData(gl.GL_PIXEL_PACK_BUFFER, 0, pixels.nbytes, pixels)
        gl.glBindBuffer(gl.GL_PIXEL_PACK_BUFFER, 0)
        self.release(buffer, size)
        return pixels

    def release(self, buffer: int, size: int) -> None:
        """Makes a buffer idle; what is still copied to it comes before what is copied next."""
        self._idle[size].append(buffer)

    def _new(self, gl: Any, size: int) -> int:
        buffer = int(gl.glGenBuffers(1))
        gl.glBindBuffer(gl.GL_PIXEL_PACK_BUFFER, buffer)
        gl.glBufferData(gl.GL_PIXEL_PACK_BUFFER, 3 * size * size, None, gl.GL_STREAM_READ)
        return buffer


class _ProcessGL:
    """This process's OpenGL context and what was uploaded to it.

    Attributes:
        uploads: The ``MjrContext`` objects in use; the context goes with the last of them.
        buffers: What pictures are copied into.
    """

    def __init__(self) -> None:
        self.uploads: list[Any] = []
        self.buffers = _PixelBuffers()
        self._lock = threading.RLock()
        self._context: Any = None
        self._process: int | None = None
        self._inherited: list[Any] = []

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes the context current in this thread, and brings back the thread's own afterwards."""
        if self._process not in (None, os.getpid()):
            # OpenGL's threads do not survive a fork: a child that renders after its parent did would wait for ever.
            raise SimulatorError(
                "This process was forked from one that had already rendered, so OpenGL cannot be used in it. "
                'Start workers with vector_kwargs={"context": "spawn"}, or before the first picture.'
            )
        with self._lock:
            give_back = _remember_binding(_context_class())
            try:
                if self._context is None:
                    self._start()
                self._context.make_current()
                yield
            finally:
                if not self.uploads:
                    self._stop()
                give_back()

    def free(self, textures: Any) -> None:
        """Frees one upload, in whichever thread."""
        if self._process != os.getpid():
            self._inherited.append(textures)  # the parent's; freeing it here would call its driver
            return
        with self.current():
            self.uploads = [kept for kept in self.uploads if kept is not textures]
            textures.free()

    def close(self) -> None:
        """Frees everything, before MuJoCo's own exit handler closes the display."""
        if self._process == os.getpid():
            gl_error = _library("OpenGL.error").Error
            # Another library's exit handler, e.g. robosuite's, may have closed the display and all in it.
            with suppress(RuntimeError, gl_error):
                for textures in list(self.uploads):
                    self.free(textures)

    def _start(self) -> None:
        self._process = os.getpid()
        try:
            # The size is that of a window nobody sees; pictures are drawn into a buffer of the upload.
            self._context = _context_class()(1, 1)
        except (ImportError, RuntimeError) as error:
            raise _cannot_start(error) from error
        atexit.unregister(self.close)
        atexit.register(self.close)  # after MuJoCo registered its own, hence before it runs

    def _stop(self) -> None:
        context, self._context = self._context, None
        self.buffers = _PixelBuffers()
        if context is not None:
            context.free()


_process_gl = _ProcessGL()


def _cannot_start(error: BaseException) -> SimulatorError:
    return SimulatorError(
        f"OpenGL cannot be started with MUJOCO_GL={os.environ.get('MUJOCO_GL')!r}: {error}. "
        "docs/libero.md, section OpenGL, lists what to install."
    )


@contextmanager
def _gl_errors_named() -> Iterator[None]:
    """Raises OpenGL's errors as the package's."""
    gl_error = _library("OpenGL.error").GLError
    try:
        yield
    except gl_error as error:
        raise SimulatorError(
            f"OpenGL failed at a picture, with error {error.err:#x} of "
            f"{getattr(error.baseOperation, '__name__', 'a function')}. Call reset; if it happens again, check the "
            "GPU's memory (`nvidia-smi`) and its driver."
        ) from error


def _context_class() -> Any:
    """MuJoCo's context for the library that `MUJOCO_GL` named when MuJoCo was imported."""
    try:
        from mujoco.gl_context import GLContext
    except (ImportError, RuntimeError, AttributeError) as error:
        raise _cannot_start(error) from error
    return GLContext


def _remember_binding(context_class: Any) -> Callable[[], None]:
    """Notes which OpenGL context this thread has, if any; the result makes it current again."""
    library = context_class.__module__.rpartition(".")[2]
    remember = {"egl": _remember_egl, "osmesa": _remember_osmesa, "glfw": _remember_glfw}.get(library)
    return remember() if remember is not None else lambda: None


def _remember_egl() -> Callable[[], None]:
    egl = _library("OpenGL.EGL")
    egl.eglBindAPI(egl.EGL_OPENGL_API)  # of this thread; OpenGL ES is what a thread starts with
    display, context = egl.eglGetCurrentDisplay(), egl.eglGetCurrentContext()
    surfaces = [egl.eglGetCurrentSurface(which) for which in (egl.EGL_DRAW, egl.EGL_READ)]

    def give_back() -> None:
        if context:
            egl.eglMakeCurrent(display, *surfaces, context)
            return
        ours = egl.eglGetCurrentDisplay()
        if ours:
            egl.eglMakeCurrent(ours, egl.EGL_NO_SURFACE, egl.EGL_NO_SURFACE, egl.EGL_NO_CONTEXT)

    return give_back


def _remember_osmesa() -> Callable[[], None]:
    gl, osmesa = _library("OpenGL.GL"), _library("OpenGL.osmesa")
    return lambda: osmesa.OSMesaMakeCurrent(None, None, gl.GL_FLOAT, 0, 0)


def _remember_glfw() -> Callable[[], None]:
    glfw = _library("glfw")
    glfw.init()
    window = glfw.get_current_context()
    return lambda: glfw.make_context_current(window)


def _library(name: str) -> Any:
    with needs("Drawing off screen", "libero"):
        return importlib.import_module(name)
