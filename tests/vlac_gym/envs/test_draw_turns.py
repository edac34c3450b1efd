"""Turns of processes that draw on one GPU: who is kept out, what frees a turn, and what is drawn in it."""

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from drawn_scene import DrawnScene

from vlac_gym.envs import draw_turns
from vlac_gym.envs.draw_turns import DrawTurns, can_take_turns, take_turns, turn
from vlac_gym.envs.offscreen import OffscreenRenderer
from vlac_gym.errors import ConfigError, SimulatorError

fcntl = pytest.importorskip("fcntl")

PACKAGE = Path(__file__).parents[3]
HOLD = """
import sys
from vlac_gym.envs.draw_turns import take_turns, turn
take_turns(int(sys.argv[1]))
print("begins", flush=True)
with turn(lambda: print("done", flush=True)):
    print("holds", flush=True)
    sys.stdin.readline()
print("ended", flush=True)
sys.stdin.readline()
"""
TRY = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        print("taken")
    else:
        print("free")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The temporary folder of this process and of those it starts; this process takes no turns afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path
    take_turns(None)


@contextmanager
def drawing_on(device):
    """A process that begins a turn on a device."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(device)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PACKAGE)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def told(process):
    return process.stdout.readline().strip()


def let_on(process):
    process.stdin.write("\n")
    process.stdin.flush()


def path_of(folder, device):
    return folder / f"vlac-gym-draw-{os.getuid()}-{device}.lock"


def is_free(path):
    """What another process finds that does not wait, and would share."""
    found = subprocess.run(
        [sys.executable, "-S", "-c", TRY, str(path)], capture_output=True, text=True, check=True
    )
    return {"free": True, "taken": False}[found.stdout.strip()]


def test_a_turn_keeps_other_processes_from_its_device_until_its_work_is_done(folder):
    with drawing_on(3) as first:
        assert [told(first), told(first)] == ["begins", "holds"]
        assert not is_free(path_of(folder, 3))
        with drawing_on(5) as elsewhere:
            assert [told(elsewhere), told(elsewhere)] == ["begins", "holds"]
        let_on(first)
        assert [told(first), told(first)] == ["done", "ended"]
        assert is_free(path_of(folder, 3))


def test_a_process_that_is_killed_in_its_turn_leaves_it_to_the_one_that_waits(folder):
    with drawing_on(0) as first:
        assert [told(first), told(first)] == ["begins", "holds"]
        with drawing_on(0) as second:
            assert told(second) == "begins"
            assert not is_free(path_of(folder, 0))
            first.kill()
            first.wait()
            assert told(second) == "holds"
            assert not is_free(path_of(folder, 0))


def test_an_error_ends_the_turn_and_the_device_is_not_waited_for(folder):
    def fail():
        with turn(lambda: pytest.fail("the drawing failed")):
            assert not is_free(path_of(folder, 0))
            raise ZeroDivisionError

    take_turns(0)
    with pytest.raises(ZeroDivisionError):
        fail()
    assert is_free(path_of(folder, 0))


def test_a_process_may_change_its_device_and_go_back_to_drawing_at_any_time(folder):
    def taken():
        with turn(lambda: None):
            return [device for device in (0, 1) if not is_free(path_of(folder, device))]

    open_before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    take_turns(1)
    take_turns(0)
    assert taken() == [0]
    take_turns(1)
    assert taken() == [1]
    take_turns(None)
    assert taken() == []
    if open_before is not None:
        assert len(os.listdir("/proc/self/fd")) == open_before


def test_the_file_is_its_users_alone_and_serves_again(folder):
    turns = DrawTurns(2)
    assert turns.path == path_of(folder, 2)
    assert turns.path.stat().st_mode & 0o777 == 0o600
    assert not os.get_inheritable(turns._file)
    turns.close()
    DrawTurns(2).close()


def test_a_link_or_anything_but_a_file_of_ones_own_is_refused(folder, monkeypatch):
    target = folder / "somebody's"
    path_of(folder, 0).symlink_to(target)
    os.mkfifo(path_of(folder, 1))
    for device in (0, 1):
        with pytest.raises(ConfigError, match=rf"draw-\d+-{device}.lock to be a file of user \d+ or"):
            take_turns(device)
    assert not target.exists()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (folder / "vlac-gym-draw-12345-2.lock").touch()
    with pytest.raises(
        ConfigError, match=r"2.lock to be a file of user 12345 .*got -rw-r--r-- of user \d+\."
    ):
        take_turns(2)
    with turn(lambda: pytest.fail("there are no turns")):
        pass


def test_a_folder_without_locks_is_a_failure_of_the_simulator_that_says_what_to_do(monkeypatch):
    def refuse(file, operation):
        raise OSError(37, "No locks available")

    take_turns(0)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(SimulatorError, match=r"No locks available\. Set TMPDIR to a folder on a local disk"):
        turn(lambda: None).__enter__()


def test_a_system_without_such_locks_says_so(monkeypatch):
    assert can_take_turns()
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert not can_take_turns()


def test_a_picture_is_drawn_and_copied_in_the_turn_and_is_the_same_to_the_bit(folder, monkeypatch):
    """Uploading and collecting what is to be seen are the process's own work; reading waits for nobody."""
    mujoco, gl = pytest.importorskip("mujoco"), pytest.importorskip("OpenGL.GL")
    events = []

    def watch(module, name):
        real = getattr(module, name)

        def watched(*args):
            events.append((name, not is_free(path_of(folder, 0)) if draw_turns._turns else False))
            return real(*args)

        monkeypatch.setattr(module, name, watched)

    for name in ("MjrContext", "mjv_updateScene", "mjr_render"):
        watch(mujoco, name)
    for name in ("glReadPixels", "glFinish", "glGetBufferSubData"):
        watch(gl, name)
    scene = DrawnScene(mujoco)
    pictures = []
    for device in (None, 0):
        take_turns(device)
        renderer = OffscreenRenderer(mujoco)
        events.clear()
        pictures.append([renderer.draw(scene.model, scene.data, "above", size).read() for size in (48, 33)])
        renderer.close()
        if device is None:
            assert "glFinish" not in dict(events)
    first = events[: events.index(("glGetBufferSubData", False)) + 1]
    assert first == [
        ("MjrContext", False),
        ("mjv_updateScene", False),
        ("mjr_render", True),
        ("glReadPixels", True),
        ("glFinish", True),
        ("glGetBufferSubData", False),
    ]
    for alone, in_turn in zip(*pictures):
        np.testing.assert_array_equal(in_turn, alone)
