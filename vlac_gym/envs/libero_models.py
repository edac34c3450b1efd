"""Compiled MuJoCo models and their textures, shared by every env of a task in one process.

A LIBERO model takes seconds to compile, seconds more to upload to OpenGL, and about 0.3 GB each. Nothing in it
changes between envs of one task, so a second env of the task costs neither: `acquire_model`, `CompiledModel`.
"""

__all__ = ["CompiledModel", "acquire_model", "free_build_memory"]

import atexit
import ctypes
import hashlib
import os
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from vlac_gym.errors import SimulatorError
from vlac_gym.types import Frame

_SMALLEST_SCREEN = (640, 480)  # MuJoCo's and robosuite's default off-screen buffer

_models: dict[str, "CompiledModel"] = {}
_models_lock = threading.Lock()
_process_with_gl: list[int] = []


def acquire_model(mujoco: Any, xml: str) -> "CompiledModel":
    """Compiles a model, or shares the one in use that came from the same XML; pair it with `release`.

    Args:
        mujoco: The imported module.
        xml: The model's description, with absolute paths of its meshes and textures.

    Raises:
        SimulatorError: The description does not compile, e.g. a mesh is missing.
    """
    digest = hashlib.sha256(xml.encode()).hexdigest()
    with _models_lock:
        compiled = _models.get(digest)
        if compiled is None:
            try:
                model = mujoco.MjModel.from_xml_string(xml)
            except ValueError as error:
                raise SimulatorError(f"MuJoCo cannot compile the task's model: {error}") from error
            compiled = CompiledModel(mujoco, model, digest)
            _models[digest] = compiled
        compiled.num_users += 1
    return compiled


def free_build_memory(mujoco: Any, *, keep_mesh_cache: bool) -> None:
    """Gives memory back to the system that building a task has used and no longer needs.

    Args:
        mujoco: The imported module.
        keep_mesh_cache: Keep MuJoCo's cache of decoded meshes and pictures, from which other tasks compile faster.
            It is kept anyway by a MuJoCo without `mj_clearCache`.
    """
    if not keep_mesh_cache and hasattr(mujoco, "mj_clearCache"):
        mujoco.mj_clearCache(mujoco.mj_getCache())
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return  # not glibc, whose allocator is the one that keeps freed memory for itself
    trim(0)


class CompiledModel:
    """A compiled model and, per thread that looks, the OpenGL context that holds its textures.

    Treat `model` as read-only: other envs step with it. `starts` is theirs too: settled starts of episodes, by a
    digest of what they follow from, the least recently used first.

    Args:
        mujoco: The imported module.
        model: The compiled ``MjModel``.
        digest: Key under which it is shared.
    """

    def __init__(self, mujoco: Any, model: Any, digest: str) -> None:
        self.model = model
        self.num_users = 0
        self.lock = threading.RLock()
        self.starts: OrderedDict[str, Any] = OrderedDict()
        self._mujoco = mujoco
        self._digest = digest
        self._screens: dict[tuple[int, int], _Screen] = {}

    def render(self, data: Any, camera: str, size: int) -> Frame:
        """Renders a camera's view of a state; hold `lock` from whatever prepares the model until this returns.

        Args:
            data: The ``MjData`` to show; its positions must be computed.
            camera: A camera's name in the model.
            size: Side of the picture in pixels.

        Returns:
            uint8 (size, size, 3), RGB, upright.

        Raises:
            SimulatorError: OpenGL cannot be started.
        """
        # An OpenGL context belongs to a thread, and a forked child must not touch its parent's.
        key = (os.getpid(), threading.get_ident())
        screen = self._screens.get(key)
        if screen is not None and screen.size < size:
            screen.close()
            screen = None
        if screen is None:
            screen = self._screens[key] = _Screen(self._mujoco, self.model, size)
            atexit.unregister(_close_screens)
            atexit.register(_close_screens)  # after MuJoCo registered its own, hence before it runs
        return screen.render(data, camera, size)

    def release(self) -> None:
        """Gives the model back; the last user's release frees it and its textures."""
        with _models_lock:
            self.num_users -= 1
            if self.num_users == 0:
                _models.pop(self._digest, None)
                self.close_screens()

    def close_screens(self) -> None:
        """Frees the textures of this process; the next `render` uploads them again."""
        for process, thread in list(self._screens):
            if process == os.getpid():
                self._screens.pop((process, thread)).close()


class _Screen:
    """One OpenGL context with a model's meshes and textures."""

    def __init__(self, mujoco: Any, model: Any, size: int) -> None:
        width, height = (max(size, least) for least in _SMALLEST_SCREEN)
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        self.size = min(width, height)
        _refuse_inherited_gl()
        self._mujoco = mujoco
        self._model = model
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        # What robosuite shows: visual meshes (group 1), no collision meshes (group 0).
        self._option = mujoco.MjvOption()
        self._option.geomgroup[0] = 0
        self._option.geomgroup[1] = 1
        try:
            from mujoco.gl_context import GLContext

            self._context = GLContext(width, height)
            self._context.make_current()
            self._textures = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        except (ImportError, RuntimeError, AttributeError, mujoco.FatalError) as error:
            raise SimulatorError(
                f"OpenGL cannot be started with MUJOCO_GL={os.environ.get('MUJOCO_GL')!r}: {error}. "
                "docs/libero.md, section OpenGL, lists what to install."
            ) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._textures)

    def render(self, data: Any, camera: str, size: int) -> Frame:
        mujoco = self._mujoco
        self._camera.fixedcamid = self._model.camera(camera).id
        self._context.make_current()
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        view = mujoco.MjrRect(0, 0, size, size)
        mujoco.mjr_render(view, self._scene, self._textures)
        picture = np.empty((size, size, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(picture, None, view, self._textures)
        return np.ascontiguousarray(picture[::-1])  # OpenGL's rows run upwards

    def close(self) -> None:
        self._textures.free()
        self._context.free()


def _refuse_inherited_gl() -> None:
    """OpenGL's threads do not survive a fork: a child that renders after its parent did would wait for ever."""
    if not _process_with_gl:
        _process_with_gl.append(os.getpid())
    elif _process_with_gl[0] != os.getpid():
        raise SimulatorError(
            "This process was forked from one that had already rendered, so OpenGL cannot be used in it. "
            'Start workers with vector_kwargs={"context": "spawn"}, or before the first picture.'
        )


def _close_screens() -> None:
    for compiled in list(_models.values()):
        compiled.close_screens()
