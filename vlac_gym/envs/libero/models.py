"""Compiled MuJoCo models and their textures, shared by equal tasks in one process.

A LIBERO model takes seconds to compile, seconds more to upload to OpenGL, and about 0.3 GB each. What it describes
follows from its XML and from what LIBERO writes into it while it constructs the task: tasks with the same XML may
have their fixtures in other places. So a model is shared by tasks for which both are equal, and the meshes and
textures in OpenGL by tasks with the same XML: `acquire_model`, `CompiledModel`.
"""

__all__ = ["CompiledModel", "acquire_model", "trim_memory"]

import ctypes
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.envs.offscreen import OffscreenRenderer, Picture
from vlac_gym.errors import SimulatorError

_ASSETS = ("bvh_", "hfield_", "mesh_", "oct_", "tex_")
"""How the names of arrays with decoded files begin: 256 MB of a model; all its other arrays have 0.2 MB."""

_DERIVED = (
    "bvh_",
    "mesh_facenormal",
    "mesh_facetexcoord",
    "mesh_normal",
    "mesh_poly",
    "mesh_texcoord",
    "tex_",
)
"""How the names of those begin that MuJoCo derives from the others, or that physics never reads."""

_models: dict[str, "CompiledModel"] = {}
_models_lock = threading.RLock()


def acquire_model(mujoco: Any, xml: str, recipe: str) -> "CompiledModel":
    """Compiles a model, or shares the one in use that an equal construction led to; pair it with `release`.

    Args:
        mujoco: The imported module.
        xml: The model's description, with absolute paths of its meshes and textures.
        recipe: What else decides what the construction writes into the model.

    Raises:
        SimulatorError: The description does not compile, e.g. a mesh is missing.
    """
    xml_key = _digest(xml)
    key = _digest(xml_key, recipe)
    with _models_lock:
        compiled = _models.get(key)
        if compiled is None:
            try:
                model = mujoco.MjModel.from_xml_string(xml)
            except ValueError as error:
                raise SimulatorError(f"MuJoCo cannot compile the task's model: {error}") from error
            renderers = [other.renderer for other in _models.values() if other.xml_key == xml_key]
            renderer = renderers[0] if renderers else OffscreenRenderer(mujoco)
            compiled = _models[key] = CompiledModel(model, renderer, xml_key)
        compiled.num_users += 1
    return compiled


def trim_memory() -> None:
    """Makes glibc give freed memory back to the system, 0.03 s; other allocators do so by themselves."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(0)


class CompiledModel:
    """A compiled model, and the renderer that holds its meshes and textures.

    Treat `model` as read-only: other envs step with it. `starts` is theirs too: settled starts of episodes, by a
    digest of what they follow from, the least recently used first.

    Args:
        model: The compiled ``MjModel``.
        renderer: Shared by models of the same XML.
        xml_key: Digest of the XML.
    """

    def __init__(self, model: Any, renderer: OffscreenRenderer, xml_key: str) -> None:
        self.model = model
        self.renderer = renderer
        self.xml_key = xml_key
        self.num_users = 0
        self.lock = threading.RLock()
        self.starts: OrderedDict[str, Any] = OrderedDict()
        self._written: dict[str, NDArray[Any]] | None = None
        self._digest: str | None = None

    @contextmanager
    def constructing(self) -> Iterator[None]:
        """To be held while LIBERO constructs a task, from `acquire_model` on: other envs' pictures wait.

        Raises:
            SimulatorError: LIBERO wrote something else into a model in use than at its first construction; the
                model is put back.
        """
        with self.lock:
            try:
                yield
            except BaseException:
                self._put_back()
                raise
            if self._written is None:
                self._written = _arrays(self.model)
            changed = self._put_back()
        if changed:
            raise SimulatorError(
                f"LIBERO wrote other values into {', '.join(changed)} than when it first constructed this task. Does "
                "another thread draw from numpy's global generator meanwhile? Build the envs before starting it."
            )

    def publish(self) -> bool:
        """Lets equal tasks share the model, once constructed.

        Returns:
            False if an equal model is in use already: then `acquire_model` gives that one from now on, and this
            one should be released.
        """
        state = _digest(self.xml_key, *_names_and_digests(self._written or {}))
        with _models_lock:
            twin = _models.setdefault(state, self)
            for key, compiled in list(_models.items()):
                if compiled is self:
                    _models[key] = twin
        return twin is self

    def digest(self) -> str:
        """SHA-256 in hex of all that physics follows from: the XML, decoded meshes, and what construction wrote.

        Takes some 20 ms when it is first called.
        """
        if self._digest is None:
            assets = _named_arrays(
                self.model, lambda name: name.startswith(_ASSETS) and not name.startswith(_DERIVED)
            )
            parts = _names_and_digests(assets | (self._written or {}))
            self._digest = _digest(self.xml_key, *parts)
        return self._digest

    def draw(self, data: Any, camera: str, size: int) -> Picture:
        """Has a camera's view of a state drawn; hold `lock` from whatever prepares the model until this returns.

        Raises:
            SimulatorError: OpenGL cannot be started.
        """
        return self.renderer.draw(self.model, data, camera, size)

    def release(self) -> None:
        """Gives the model back, from any thread; the last user's release frees it and its textures."""
        with _models_lock:
            self.num_users -= 1
            if self.num_users > 0:
                return
            for key in [key for key, compiled in _models.items() if compiled is self]:
                del _models[key]
            is_last = all(compiled.renderer is not self.renderer for compiled in _models.values())
        if is_last:
            self.renderer.close()

    def _put_back(self) -> list[str]:
        """Undoes what was written since the first construction: the names of the arrays that differed."""
        now = _arrays(self.model)
        written = self._written or {}
        changed = [name for name, array in written.items() if array.tobytes() != now[name].tobytes()]
        for name in changed:
            getattr(self.model, name)[...] = written[name]
        return changed


def _arrays(model: Any) -> dict[str, NDArray[Any]]:
    """Copies of all arrays of a model that do not hold decoded files."""
    found = _named_arrays(model, lambda name: not name.startswith(("_", *_ASSETS)))
    return {name: array.copy() for name, array in found.items()}


def _named_arrays(model: Any, is_wanted: Callable[[str], bool]) -> dict[str, NDArray[Any]]:
    found = {name: getattr(model, name) for name in dir(model) if is_wanted(name)}
    return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}


def _names_and_digests(arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    return [f"{name} {_digest(arrays[name].tobytes())}" for name in sorted(arrays)]


def _digest(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        encoded = part.encode() if isinstance(part, str) else part
        whole.update(f"{len(encoded)} ".encode() + encoded)
    return whole.hexdigest()
