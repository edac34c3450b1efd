"""The checks of `vlac-gym doctor`, one function each; what may crash or hang runs in its own process.

`check_packages`, `check_mujoco`, `check_rendering`, `check_libero`, `check_start_cache`, `check_torch`, `check_video`,
`check_critic`.
"""

__all__ = [
    "Check",
    "check_critic",
    "check_libero",
    "check_mujoco",
    "check_packages",
    "check_rendering",
    "check_start_cache",
    "check_torch",
    "check_video",
]

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlac_gym import __version__
from vlac_gym.critic import make_critic
from vlac_gym.envs.gl import EGL_HINT, OSMESA_HINT
from vlac_gym.envs.libero.install import INSTALL_HINT, find_libero
from vlac_gym.envs.libero.start_cache import (
    MAX_BYTES,
    START_CACHE_VARIABLE,
    open_start_cache,
    start_cache_folder,
)
from vlac_gym.envs.libero.tasks import STANDARD_SUITES, list_suites, list_tasks
from vlac_gym.envs.mujoco_version import MUJOCO_REQUIREMENT, mujoco_problem
from vlac_gym.errors import (
    ConfigError,
    CriticConnectionError,
    CriticError,
    CriticOverloadedError,
    CriticProtocolError,
    CriticTimeoutError,
    DependencyNotInstalled,
    VlacGymError,
)
from vlac_gym.extras import needs

_TIMEOUT_S = 120.0

_RENDER = """
from vlac_gym.envs.gl import configure_gl
backend = configure_gl()
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom type='sphere' size='1' rgba='1 0 0 1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 48, 64)
renderer.update_scene(data)
picture = renderer.render()
assert picture.max() > 0, "the picture is black"
from OpenGL import GL
print(backend + ", " + GL.glGetString(GL.GL_RENDERER).decode())
"""

_LIBERO = """
from vlac_gym.envs.gl import configure_gl
from vlac_gym.envs.libero.importing import importing_libero
configure_gl()
with importing_libero():
    import libero.libero.envs
"""

_TORCH = """
import torch
name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
print(f"torch {torch.__version__}, {name}")
"""

_MENDS: dict[type[VlacGymError], str] = {
    CriticConnectionError: "start the server with `vlac-gym serve`, and check host, port and firewall",
    CriticTimeoutError: "the server is busy or still loading: look at its /readyz, or try again",
    CriticOverloadedError: "the server is busy or asleep: wait, or wake it with POST /v1/wake",
    CriticProtocolError: f"install vlac-gym {__version__} on the server too",
    ConfigError: "correct --critic",
}


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: One word.
        status: `ok`; `note`: absent or slow, and only some uses need it; `broken`: a plain rollout fails.
        found: What is there.
        mend: What to do, empty if nothing.
    """

    name: str
    status: Literal["ok", "note", "broken"]
    found: str
    mend: str = ""


def check_packages() -> Check:
    """Python and the packages that everything needs."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("gymnasium", "numpy")]
    return Check(
        "python", "ok", f"{platform.python_version()}, vlac-gym {__version__}, {', '.join(versions)}"
    )


def check_rendering() -> Check:
    """Draws a small picture with MuJoCo, off screen."""
    if importlib.util.find_spec("mujoco") is None:
        return Check("rendering", "broken", "mujoco is not installed", INSTALL_HINT)
    is_well, text = _run_python(_RENDER)
    if not is_well:
        return Check(
            "rendering", "broken", text, f"`{EGL_HINT}` or `{OSMESA_HINT}`; unset MUJOCO_GL if you set it"
        )
    if any(word in text.lower() for word in ("llvmpipe", "softpipe", "osmesa")):
        return Check(
            "rendering", "note", f"{text}: in software, slow but right", "a GPU driver with EGL is faster"
        )
    return Check("rendering", "ok", text)


def check_mujoco() -> Check:
    """Which MuJoCo is here, and whether LIBERO's scenes are right under it."""
    mend = f'pip install "{MUJOCO_REQUIREMENT}"'
    try:
        version = importlib.metadata.version("mujoco")
    except importlib.metadata.PackageNotFoundError:
        return Check("mujoco", "broken", "not installed", INSTALL_HINT)
    problem = mujoco_problem(version)
    if problem is not None:
        return Check("mujoco", "broken", f"{version}: {problem}", mend)
    return Check("mujoco", "ok", version)


def check_libero() -> Check:
    """LIBERO's files, and that it can be imported without asking a question."""
    try:
        install = find_libero()
        suites = list_suites()
        for suite in STANDARD_SUITES:
            list_tasks(suite)
    except DependencyNotInstalled as e:
        return Check("libero", "broken", str(e), INSTALL_HINT)
    except ConfigError as e:
        return Check("libero", "broken", str(e))
    if not install.assets.is_dir() or not any(install.assets.iterdir()):
        return Check("libero", "broken", f"no meshes at {install.assets}", f"reinstall: {INSTALL_HINT}")
    is_well, text = _run_python(_LIBERO)
    if not is_well:
        return Check("libero", "broken", f"import fails: {text}", f"reinstall: {INSTALL_HINT}")
    return Check("libero", "ok", f"{len(suites)} suites at {install.package}")


def check_start_cache() -> Check:
    """Where settled starts of episodes are kept, and how many."""
    name, mend = "starts", f"point {START_CACHE_VARIABLE} to a folder that can be written"
    try:
        folder = start_cache_folder(None)
    except ConfigError as e:
        return Check(name, "broken", str(e), mend)
    if folder is None:
        return Check(name, "ok", f"not kept on disk; {START_CACHE_VARIABLE} can name a folder for them")
    count, size = open_start_cache(folder).num_bytes()
    found = f"{count} in {folder}, {size / 1e6:.1f} of at most {MAX_BYTES / 1e6:.0f} MB"
    if folder.exists() and not os.access(folder, os.W_OK):
        return Check(name, "note", f"{found}; new ones can't be written", mend)
    return Check(name, "ok", found)


def check_torch() -> Check:
    """torch and a GPU: only critics that run a model in this process need them."""
    if importlib.util.find_spec("torch") is None:
        return Check(
            "torch",
            "note",
            "not installed; only a model critic in this process needs it",
            'pip install "vlac-gym[vlac]"',
        )
    is_well, text = _run_python(_TORCH)
    if not is_well:
        return Check("torch", "broken", f"import fails: {text}", 'reinstall: pip install "vlac-gym[vlac]"')
    if "no GPU" not in text:
        return Check("torch", "ok", text)
    if shutil.which("nvidia-smi") is not None:
        return Check("torch", "note", f"{text}, though nvidia-smi is here", "install torch's CUDA build")
    return Check(
        "torch", "note", f"{text}; model critics are slow here", "serve the critic from a GPU machine"
    )


def check_video() -> Check:
    """matplotlib, pillow, and an ffmpeg that writes H.264."""
    mend = 'pip install "vlac-gym[video]"'
    missing = [
        name for name in ("matplotlib", "PIL", "imageio_ffmpeg") if importlib.util.find_spec(name) is None
    ]
    if missing:
        return Check("video", "broken", f"not installed: {', '.join(missing)}", mend)
    with needs("A video", "video"):
        import imageio_ffmpeg

    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
        encoders = subprocess.run(
            [program, "-hide_banner", "-encoders"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, RuntimeError, subprocess.SubprocessError) as e:
        return Check("video", "broken", f"ffmpeg does not run: {_last_line(str(e))}", f"reinstall: {mend}")
    if "264" not in encoders.stdout:
        return Check(
            "video", "broken", f"{program} has no H.264 encoder", f"unset IMAGEIO_FFMPEG_EXE, or {mend}"
        )
    return Check("video", "ok", f"ffmpeg with H.264 at {program}")


def check_critic(spec: str) -> Check:
    """Builds the critic and asks it about one grey picture."""
    name = "critic"
    start = time.perf_counter()
    try:
        critic = make_critic(spec)
        try:
            if critic.describe().is_privileged:
                return Check(
                    name, "ok", f"{spec} is privileged: it reads the simulator, there is nothing to reach"
                )
            critic.identify(
                retry=False
            )  # A lost server is told at once, not after all the retries of a question.
            picture = np.full((64, 64, 3), 127, dtype=np.uint8)
            prob = float(critic.success_prob([picture], ["put the bowl on the plate"])[0])
            info = critic.describe()
        finally:
            critic.close()
    except (CriticError, ConfigError, DependencyNotInstalled) as e:
        mend = next((text for kind, text in _MENDS.items() if isinstance(e, kind)), "see the message")
        return Check(name, "broken", f"{type(e).__name__}: {e}", mend)
    latency_ms = (time.perf_counter() - start) * 1e3
    return Check(
        name, "ok", f"{info.name}, model {info.model}, answered {prob:.2f} in {latency_ms:.0f} ms with start"
    )


def _run_python(code: str) -> tuple[bool, str]:
    """Runs code in a fresh interpreter; its last line of output, or of its error."""
    try:
        result = subprocess.run(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,  # An import that asks a question fails instead of waiting.
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer in {_TIMEOUT_S:.0f} s"
    if result.returncode != 0:
        return False, _last_line(result.stderr) or f"exit status {result.returncode}"
    return True, _last_line(result.stdout)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
