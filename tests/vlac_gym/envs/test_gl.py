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


@pytest.mark.parametrize("environ", [{"MUJOCO_EGL_DEVICE_ID": ""}, {"MUJOCO_EGL_DEVICE_ID": " "}])
def test_an_empty_device_counts_as_unset(environ):
    environ["MUJOCO_GL"] = "egl"
    gl.configure_gl(environ)
    assert "MUJOCO_EGL_DEVICE_ID" not in environ


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"MUJOCO_EGL_DEVICE_ID": "GPU-0"},
            "Expected MUJOCO_EGL_DEVICE_ID to be a device's number, got 'GPU-0'",
        ),
        ({"MUJOCO_EGL_DEVICE_ID": "-1"}, "got '-1'"),
        (
            {"MUJOCO_EGL_DEVICE_ID": "0", "CUDA_VISIBLE_DEVICES": "1,2"},
            "one of CUDA_VISIBLE_DEVICES=1,2, as robosuite demands, got 0",
        ),
    ],
)
def test_a_device_that_mujoco_or_robosuite_would_stumble_over_is_refused(environ, message):
    with pytest.raises(ConfigError, match=message):
        gl.configure_gl({"MUJOCO_GL": "egl", **environ})


@pytest.fixture
def devices(monkeypatch):
    """Makes EGL list two GPUs that start, one that does not, and Mesa's software."""
    monkeypatch.setattr(gl, "_egl_devices", lambda: [GPU, GPU, GPU, SOFTWARE])
    monkeypatch.setattr(gl, "_egl_starts", lambda device: device != 2)


@pytest.mark.parametrize(
    ("environ", "chosen", "expected"),
    [
        ({}, None, [0, 1, 0, 0, 1]),  # worker 2's GPU does not start: the next one
        ({"MUJOCO_GL": "egl", "MUJOCO_EGL_DEVICE_ID": ""}, None, [0, 1, 0, 0, 1]),
        ({}, [3, 1], [3, 1, 3, 1, 3]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, None, [1] * 5),
        ({"CUDA_VISIBLE_DEVICES": "1, 0"}, None, [1, 0, 1, 0, 1]),
        ({"CUDA_VISIBLE_DEVICES": "0,7"}, None, [0] * 5),
        ({"CUDA_VISIBLE_DEVICES": "GPU-5f2c"}, None, [None] * 5),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, None, [None] * 5),
        ({"MUJOCO_EGL_DEVICE_ID": "1"}, None, [None] * 5),
        ({"MUJOCO_EGL_DEVICE_ID": "1"}, [1], [None] * 5),
        ({"MUJOCO_GL": "osmesa"}, None, [None] * 5),
    ],
)
def test_workers_share_out_the_visible_gpus(devices, environ, chosen, expected):
    for worker, device in enumerate(expected):
        mine = dict(environ)
        assert gl.spread_rendering(worker, chosen, mine) == device
        if device is None:
            assert mine == environ  # what the user set stays as it was
        else:
            assert mine == {**environ, "MUJOCO_EGL_DEVICE_ID": str(device)}
            gl._check_device(mine)  # and robosuite accepts it


def test_without_gpus_mujoco_chooses(monkeypatch):
    monkeypatch.setattr(gl, "_egl_devices", lambda: [SOFTWARE])
    environ: dict[str, str] = {}
    assert gl.spread_rendering(1, None, environ) is None
    assert environ == {}


def test_a_machine_without_egl_shares_nothing_out(monkeypatch):
    def refuse(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert gl.spread_rendering(0, None, {}) is None
    assert gl.spread_rendering(0, [0], {}) is None


@pytest.mark.skipif(gl.probe_egl() is not None, reason="EGL is not installed")
def test_a_real_device_is_told_from_one_that_is_not_there():
    assert any(gl._egl_starts(device) for device in range(len(gl._egl_devices())))
    assert not gl._egl_starts(63)


@pytest.mark.parametrize(
    ("devices", "environ", "message"),
    [
        ((), {}, r"numbers of EGL devices, e\.g\. \(0, 1\), got \(\)"),
        (("0",), {}, "numbers of EGL devices"),
        ((-1,), {}, "numbers of EGL devices"),
        ((0, 1), {"MUJOCO_EGL_DEVICE_ID": "0"}, r"within MUJOCO_EGL_DEVICE_ID=0, got \(0, 1\)"),
        ((2,), {"CUDA_VISIBLE_DEVICES": "0, 1"}, "within CUDA_VISIBLE_DEVICES=0,1"),
    ],
)
def test_devices_that_cannot_be_meant_are_refused(devices, environ, message):
    with pytest.raises(ConfigError, match=message):
        gl.check_devices(devices, environ)


def test_devices_that_agree_with_the_environment_are_accepted():
    gl.check_devices((1, 0), {"CUDA_VISIBLE_DEVICES": "0,1,2", "MUJOCO_EGL_DEVICE_ID": ""})
    gl.check_devices((1,), {"MUJOCO_EGL_DEVICE_ID": "1"})
