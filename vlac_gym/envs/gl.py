"""Choosing the OpenGL library and the GPU before MuJoCo is imported, and what they are: `configure_gl`,
`spread_rendering`, `renders_in_software`, `renderer_name`, `probe_egl`, `probe_osmesa`.

MuJoCo and PyOpenGL read their environment variables once, at import. Without a display there are two ways to
render: EGL (a GPU's driver, or Mesa's software renderer) and OSMesa (software only).
"""

__all__ = [
    "GLBackend",
    "check_devices",
    "configure_gl",
    "probe_egl",
    "probe_osmesa",
    "renderer_name",
    "renders_in_software",
    "spread_rendering",
]

import ctypes
import importlib.metadata
import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Literal

from vlac_gym.errors import ConfigError, SimulatorError

_LOGGER = logging.getLogger(__name__)

GLBackend = Literal["egl", "osmesa", "glfw", "cgl", "wgl"]

EGL_HINT = "sudo apt-get install -y libegl1 libgl1-mesa-dri"
OSMESA_HINT = "sudo apt-get install -y libosmesa6"

_EGL_EXTENSIONS = 0x3055  # EGL_EXTENSIONS in egl.h
_EGL_PLATFORM_DEVICE = 0x313F  # EGL_PLATFORM_DEVICE_EXT in eglext.h
_MOST_EGL_DEVICES = 64


def renderer_name() -> str | None:
    """What draws the pictures, e.g. ``"mujoco 3.3.2"``; None where MuJoCo is not installed. Imports nothing."""
    try:
        return f"mujoco {importlib.metadata.version('mujoco')}"
    except importlib.metadata.PackageNotFoundError:
        return None


def configure_gl(environ: MutableMapping[str, str] | None = None) -> str:
    """Sets `MUJOCO_GL` and `PYOPENGL_PLATFORM`, unless the user did, so that rendering works without a display.

    EGL is tried first, then OSMesa; a value of `MUJOCO_GL` that is already set is kept. Calling it again, or
    after MuJoCo was imported by somebody else, changes nothing.

    Args:
        environ: The environment to change; `os.environ` by default.

    Returns:
        The value of `MUJOCO_GL` in force.

    Raises:
        ConfigError: `PYOPENGL_PLATFORM` contradicts `MUJOCO_GL`, or `MUJOCO_EGL_DEVICE_ID` is no device's number.
        SimulatorError: Neither library is there; the message has the apt command.
    """
    env = os.environ if environ is None else environ
    chosen = env.get("MUJOCO_GL", "").lower().strip()
    if sys.platform != "linux":
        return chosen or "native"
    _check_device(env)
    if not chosen:
        chosen = _choose((("egl", probe_egl), ("osmesa", probe_osmesa)))
        if "mujoco" in sys.modules:
            _LOGGER.warning("mujoco was imported before MUJOCO_GL was set; set MUJOCO_GL=%s first.", chosen)
        env["MUJOCO_GL"] = chosen
    if chosen in ("egl", "osmesa"):
        platform = env.setdefault("PYOPENGL_PLATFORM", chosen).lower()
        if platform != chosen:
            raise ConfigError(
                f"Expected PYOPENGL_PLATFORM={chosen} to go with MUJOCO_GL={chosen}, got {platform!r}. "
                "Unset PYOPENGL_PLATFORM or make them equal."
            )
    return chosen


def _check_device(env: MutableMapping[str, str]) -> None:
    """Refuses what MuJoCo and robosuite would stumble over; an empty variable counts as unset."""
    device = env.get("MUJOCO_EGL_DEVICE_ID")
    if device is None:
        return
    if not device.strip():
        del env["MUJOCO_EGL_DEVICE_ID"]
        return
    if not (device.isascii() and device.isdecimal()):
        raise ConfigError(
            f"Expected MUJOCO_EGL_DEVICE_ID to be a device's number, got {device!r}. Correct or unset it."
        )
    visible = env.get("CUDA_VISIBLE_DEVICES", "")
    if visible and device not in visible:  # robosuite's own test, at its import
        raise ConfigError(
            f"Expected MUJOCO_EGL_DEVICE_ID to be one of CUDA_VISIBLE_DEVICES={visible}, as robosuite demands, got "
            f"{device}. Make them agree or unset one."
        )


def spread_rendering(
    worker: int, devices: Sequence[int] | None = None, environ: MutableMapping[str, str] | None = None
) -> int | None:
    """Gives a worker process its GPU to render on, in turn, by setting `MUJOCO_EGL_DEVICE_ID`; call it before MuJoCo.

    Without it every process takes the first GPU. What the user has chosen stays: a `MUJOCO_EGL_DEVICE_ID` that is
    set, and a `MUJOCO_GL` other than EGL. Numbers count EGL's devices, and the same numbers in `CUDA_VISIBLE_DEVICES`
    bound the choice, as in robosuite.

    Args:
        worker: The worker's position among all of them, from 0.
        devices: Which EGL devices to share out; None for every visible GPU.
        environ: The environment to change; `os.environ` by default.

    Returns:
        The device, or None if nothing was chosen: it is the user's choice, or no GPU is visible.
    """
    env = os.environ if environ is None else environ
    is_chosen = env.get("MUJOCO_EGL_DEVICE_ID", "").strip() != ""
    if is_chosen or sys.platform != "linux" or env.get("MUJOCO_GL", "egl").lower().strip() not in ("egl", ""):
        return None
    try:
        candidates = _visible_gpus(env) if devices is None else list(devices)
        first = worker % max(1, len(candidates))
        for device in candidates[first:] + candidates[:first]:
            if _egl_starts(device):
                env["MUJOCO_EGL_DEVICE_ID"] = str(device)
                return device
    except _EGLMissingError as error:
        _LOGGER.info("Rendering is not shared out among GPUs: %s", error)
    return None


def check_devices(devices: Sequence[int], environ: Mapping[str, str] | None = None) -> None:
    """Refuses a list of EGL devices for `spread_rendering` that is none, or that contradicts the environment.

    Raises:
        ConfigError: Says which.
    """
    env = os.environ if environ is None else environ
    if not devices or not all(isinstance(device, int) and device >= 0 for device in devices):
        raise ConfigError(
            f"Expected render_devices to be numbers of EGL devices, e.g. (0, 1), got {devices!r}."
        )
    for name in ("MUJOCO_EGL_DEVICE_ID", "CUDA_VISIBLE_DEVICES"):
        allowed = env.get(name, "").replace(" ", "")
        if allowed and not all(str(device) in allowed.split(",") for device in devices):
            raise ConfigError(
                f"Expected render_devices within {name}={allowed}, got {devices!r}. Drop one of them."
            )


def _visible_gpus(env: Mapping[str, str]) -> list[int]:
    found = _egl_devices()
    gpus = [i for i, extensions in enumerate(found) if "EGL_NV_device_cuda" in extensions]
    gpus = gpus or [i for i, extensions in enumerate(found) if "EGL_MESA_device_software" not in extensions]
    chosen = env.get("CUDA_VISIBLE_DEVICES", "").replace(" ", "")
    if not chosen:
        return gpus
    return [int(part) for part in chosen.split(",") if part.isdecimal() and int(part) in gpus]


def _choose(probes: tuple[tuple[str, Callable[[], str | None]], ...]) -> str:
    problems = []
    for name, probe in probes:
        problem = probe()
        if problem is None:
            return name
        problems.append(f"{name}: {problem}")
    raise SimulatorError(
        "No OpenGL library for rendering without a display was found "
        f"({'; '.join(problems)}). Install one: `{EGL_HINT}` or `{OSMESA_HINT}`."
    )


def probe_egl() -> str | None:
    """Says why EGL cannot be used, or None if it offers at least one device."""
    try:
        devices = _egl_devices()
    except _EGLMissingError as error:
        return f"{error} (`{EGL_HINT}`)"
    return None if devices else f"libEGL has no device; a driver or Mesa is missing (`{EGL_HINT}`)"


def renders_in_software(environ: Mapping[str, str] | None = None) -> bool:
    """True if the OpenGL library in force draws on the CPU: OSMesa, or Mesa's software device through EGL.

    Asks no more than the libraries' lists of devices: nothing is rendered, MuJoCo is not imported.

    Args:
        environ: Where `MUJOCO_GL` and `MUJOCO_EGL_DEVICE_ID` are read; `os.environ` by default.
    """
    env = os.environ if environ is None else environ
    if env.get("MUJOCO_GL", "").lower().strip() == "osmesa":
        return True
    try:
        devices = _egl_devices()
    except _EGLMissingError:
        return sys.platform == "linux"  # then OSMesa is all that is left
    if not devices:
        # OSMesa is left here too, unless EGL is asked for.
        return sys.platform == "linux" and not env.get("MUJOCO_GL")
    chosen = env.get("MUJOCO_EGL_DEVICE_ID", "")
    # Without a choice MuJoCo takes the first that starts, and drivers of GPUs come before Mesa's software.
    index = int(chosen) if chosen.isdecimal() and int(chosen) < len(devices) else 0
    return "EGL_MESA_device_software" in devices[index]


class _EGLMissingError(Exception):
    """libEGL, or what it needs to list devices, is not there."""


def _egl_devices() -> list[str]:
    """EGL's devices, each as the list of its extensions, in the order in which MuJoCo numbers them."""
    egl, handles = _egl_handles()
    naming = egl.eglGetProcAddress(b"eglQueryDeviceStringEXT")
    describe = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)(naming)
    return [(describe(handle, _EGL_EXTENSIONS) or b"").decode() for handle in handles]


def _egl_starts(device: int) -> bool:
    """True if a device can be used by this process; a container may list GPUs that it does not lend."""
    egl, handles = _egl_handles()
    opening = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not opening or device >= len(handles):
        return False
    get_display = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)(opening)
    display = get_display(_EGL_PLATFORM_DEVICE, handles[device], None)
    if not display:
        return False
    egl.eglInitialize.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    # Never terminated: a device has one display per process, and all contexts of the process live in it.
    return bool(egl.eglInitialize(display, None, None))


def _egl_handles() -> tuple[Any, list[int]]:
    """libEGL and its devices, in the order in which MuJoCo numbers them."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError as error:
        raise _EGLMissingError(str(error)) from error
    egl.eglQueryString.restype = ctypes.c_char_p
    egl.eglQueryString.argtypes = [ctypes.c_void_p, ctypes.c_int]
    if b"EGL_EXT_device" not in (egl.eglQueryString(None, _EGL_EXTENSIONS) or b""):
        raise _EGLMissingError("libEGL lacks EGL_EXT_device_enumeration")
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    egl.eglGetProcAddress.argtypes = [ctypes.c_char_p]
    listing, naming = (egl.eglGetProcAddress(f) for f in (b"eglQueryDevicesEXT", b"eglQueryDeviceStringEXT"))
    if not (listing and naming):
        raise _EGLMissingError("libEGL lacks eglQueryDevicesEXT")
    count = ctypes.c_int(0)
    handles = (ctypes.c_void_p * _MOST_EGL_DEVICES)()
    pointer = ctypes.POINTER(ctypes.c_int)
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, pointer)(listing)
    if not query(_MOST_EGL_DEVICES, handles, ctypes.byref(count)):
        return egl, []
    return egl, [handle or 0 for handle in handles[: count.value]]


def probe_osmesa() -> str | None:
    """Says why OSMesa cannot be used, or None if its library loads."""
    for name in ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return None
    return f"libOSMesa.so not found (`{OSMESA_HINT}`)"
