"""`configure_gl`: which OpenGL library is chosen, and what it says when there is none."""

import ctypes

import pytest

from vlac_gym.envs import gl
from vlac_gym.errors import ConfigError, SimulatorError


def test_egl_is_preferred(monkeypatch):
    monkeypatch.setattr(gl, "probe_egl", lambda: None)
    monkeypatch.setattr(gl, "probe_osmesa", lambda: None)
    environ: dict[str, str] = {}
    assert gl.configure_gl(environ) == "egl"
    assert environ == {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl"}


def test_osmesa_is_used_without_egl(monkeypatch):
    monkeypatch.setattr(gl, "probe_egl", lambda: "no device")
    monkeypatch.setattr(gl, "probe_osmesa", lambda: None)
    environ: dict[str, str] = {}
    assert gl.configure_gl(environ) == "osmesa"
    assert environ == {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"}


def test_the_users_choice_is_kept(monkeypatch):
    monkeypatch.setattr(gl, "probe_egl", lambda: pytest.fail("no probe is needed"))
    environ = {"MUJOCO_GL": "osmesa"}
    assert gl.configure_gl(environ) == "osmesa"
    assert environ == {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"}


def test_contradicting_variables_are_refused():
    with pytest.raises(
        ConfigError, match="Expected PYOPENGL_PLATFORM=egl to go with MUJOCO_GL=egl, got 'osmesa'"
    ):
        gl.configure_gl({"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "osmesa"})


def test_missing_libraries_name_the_apt_commands(monkeypatch):
    def refuse(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    environ: dict[str, str] = {}
    with pytest.raises(SimulatorError, match=r"apt-get install -y libegl1 .*apt-get install -y libosmesa6"):
        gl.configure_gl(environ)
    assert environ == {}


GPU, SOFTWARE = (
    "EGL_NV_device_cuda EGL_EXT_device_drm",
    "EGL_MESA_device_software EGL_EXT_device_persistent_id",
)


@pytest.mark.parametrize(
    ("devices", "environ", "expected"),
    [
        ([GPU, SOFTWARE], {}, False),
        ([SOFTWARE], {}, True),
        ([GPU, SOFTWARE], {"MUJOCO_EGL_DEVICE_ID": "1"}, True),
        ([GPU, SOFTWARE], {"MUJOCO_EGL_DEVICE_ID": "9"}, False),
        ([GPU], {"MUJOCO_GL": "OSMesa"}, True),
        ([], {"MUJOCO_GL": "egl"}, False),
        ([], {}, True),
    ],
)
def test_software_rendering_is_told_by_the_device(monkeypatch, devices, environ, expected):
    monkeypatch.setattr(gl, "_egl_devices", lambda: devices)
    assert gl.renders_in_software(environ) is expected


def test_without_egl_software_is_what_is_left(monkeypatch):
    def refuse(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert gl.renders_in_software({}) is True
