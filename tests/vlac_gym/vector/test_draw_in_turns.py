"""`draw_in_turns`: which processes take turns, on which device, and that their pictures stay what they were."""

import multiprocessing
import signal
import sys
from functools import partial
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from drawn_scene import DrawnEnv
from vector_envs import ShadedEnv

from vlac_gym.envs import gl, render_service
from vlac_gym.envs.draw_turns import take_turns
from vlac_gym.errors import ConfigError
from vlac_gym.vector import RolloutVectorEnv, process_executor, worker
from vlac_gym.vector.observations import allocate
from vlac_gym.vector.slot import EnvSpaces
from vlac_gym.vector.worker import WorkerPlace, serve_slots, share

pytest.importorskip("fcntl")
GPU, SOFTWARE = "EGL_NV_device_cuda EGL_EXT_device_drm", "EGL_MESA_device_software"


class TurnsEnv(DrawnEnv):
    """Takes turns as on a GPU, whatever draws."""

    def reset(self, *, seed=None, options=None):
        take_turns(0)
        return super().reset(seed=seed, options=options)


@pytest.fixture
def taken(monkeypatch):
    """The devices on which what runs in this process takes turns; workers are given the second of two."""
    devices = []
    for module in (worker, render_service):
        monkeypatch.setattr(module, "take_turns", devices.append)
    monkeypatch.setattr(gl, "_egl_devices", lambda: [GPU, GPU])
    monkeypatch.setattr(gl, "_egl_starts", lambda device: True)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "")  # which `spread_rendering` changes, and is put back
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return devices


def serve(draws_in_turns, render_line=None):
    """What a worker process does that is told to stop at once."""
    ours, theirs = multiprocessing.Pipe()
    ours.send((0, None))
    context = multiprocessing.get_context("spawn")
    box = gym.spaces.Box(-1.0, 1.0, (7,), np.float32)
    memory = allocate(box, 1, context)
    place = WorkerPlace(1, None, None, render_line, draws_in_turns)
    serve_slots(theirs, share(context, {}), share(context, EnvSpaces(box, box)), memory, 1, place)


def test_workers_take_turns_on_the_device_that_they_were_given(taken):
    serve(draws_in_turns=False)
    assert taken == []
    serve(draws_in_turns=True)
    assert taken == [1]


def test_workers_that_do_not_draw_leave_turns_to_those_that_draw_for_them(taken, monkeypatch):
    lines = []
    monkeypatch.setattr(worker, "draw_through", lines.append)
    serve(draws_in_turns=True, render_line="line")
    assert (lines, taken) == (["line"], [])
    for draws_in_turns in (False, True):
        ours, theirs = multiprocessing.Pipe()
        ours.close()
        render_service.serve_pictures(theirs, 1, None, draws_in_turns)
    assert taken == [1]


def test_where_cores_draw_nobody_takes_turns(taken, monkeypatch):
    monkeypatch.setattr(gl, "_egl_devices", lambda: [SOFTWARE])
    serve(draws_in_turns=True)
    assert taken == [None]


@pytest.mark.parametrize("options", [{}, {"draw_in_turns": False}, {"draw_in_turns": True}])
def test_all_processes_are_told(monkeypatch, options):
    told = []

    def render_process(context, number, render_devices, draws_in_turns):
        told.append(draws_in_turns)
        return SimpleNamespace(line=None, ask_to_stop=lambda: None, stop=lambda deadline_s: None)

    def make_worker(context, env_fns, spaces, memory, count, place):
        told.append(place.draws_in_turns)
        raise InterruptedError

    monkeypatch.setattr(process_executor, "RenderProcess", render_process)
    monkeypatch.setattr(process_executor, "Worker", make_worker)
    with pytest.raises(InterruptedError):
        RolloutVectorEnv([ShadedEnv], render_processes=1, **options)
    assert told == [options.get("draw_in_turns", False)] * 2


def test_a_system_without_locks_is_refused_before_a_process_starts(monkeypatch):
    monkeypatch.setattr(process_executor, "Worker", None)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(ConfigError, match=rf"draw_in_turns=False on {sys.platform}, got True: .* fcntl"):
        RolloutVectorEnv([ShadedEnv], draw_in_turns=True)


def test_pictures_are_the_same_to_the_bit(tmp_path, monkeypatch):
    pytest.importorskip("mujoco")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    seen = []
    for kind in (DrawnEnv, TurnsEnv):
        env = RolloutVectorEnv([partial(kind, 0.1 * i) for i in range(2)], draw_in_turns=kind is TurnsEnv)
        observations = [
            env.reset(seed=0)[0]["image"],
            env.step(np.full((2, 7), 0.25, np.float32))[0]["image"],
        ]
        seen.append(np.array(observations))
        env.close()
    np.testing.assert_array_equal(*seen)
    assert not np.array_equal(seen[0][0], seen[0][1])
    assert [path.name.rpartition("-")[2] for path in tmp_path.glob("*.lock")] == ["0.lock"]
