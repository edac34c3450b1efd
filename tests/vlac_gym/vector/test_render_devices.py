"""Which GPU each worker process renders on."""

import os
import subprocess

import numpy as np
import pytest
from vector_envs import ShadedEnv

from vlac_gym.envs import gl
from vlac_gym.errors import ConfigError
from vlac_gym.vector import RolloutVectorEnv, make_vec, process_executor


class TellingEnv(ShadedEnv):
    """Says in its info which device its process was given."""

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed, options=options)
        return observation, {**info, "device": os.environ.get("MUJOCO_EGL_DEVICE_ID", "none")}


def test_each_worker_gets_its_number_and_the_devices(monkeypatch):
    started = []

    class Recorded:
        def __init__(self, context, env_fns, space, memory, count, place):
            self.indices = tuple(env_fns)
            started.append((self.indices, place.number, place.render_devices))
            if place.number == 2:
                raise InterruptedError

        def ask_to_stop(self):
            pass

        def stop(self, deadline_s):
            pass

    monkeypatch.setattr(process_executor, "Worker", Recorded)
    with pytest.raises(InterruptedError):
        RolloutVectorEnv([ShadedEnv] * 6, envs_per_worker=2, render_devices=(1, 0))
    assert started == [((0, 1), 0, (1, 0)), ((2, 3), 1, (1, 0)), ((4, 5), 2, (1, 0))]


@pytest.mark.skipif(gl.probe_egl() is not None, reason="EGL is not installed")
def test_workers_are_told_their_device_before_the_env_is_made(monkeypatch):
    monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    first = next(device for device in range(64) if gl._egl_starts(device))
    envs = RolloutVectorEnv([TellingEnv] * 2, render_devices=(first,))
    infos = envs.reset(seed=0)[1]
    envs.close()
    assert list(infos["device"]) == [str(first)] * 2
    assert "MUJOCO_EGL_DEVICE_ID" not in os.environ


def test_the_users_device_reaches_every_worker(monkeypatch):
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "5")
    envs = RolloutVectorEnv([TellingEnv] * 2)
    infos = envs.reset(seed=0)[1]
    envs.close()
    assert list(infos["device"]) == ["5", "5"]


def test_devices_that_cannot_be_used_are_refused_before_a_process_starts(monkeypatch):
    monkeypatch.setattr(process_executor, "Worker", None)
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "0")
    with pytest.raises(ConfigError, match="within MUJOCO_EGL_DEVICE_ID=0"):
        RolloutVectorEnv([ShadedEnv], render_devices=(1,))
    with pytest.raises(ConfigError, match="render_devices with mode='async' only"):
        RolloutVectorEnv([ShadedEnv], mode="sync", render_devices=(0,))


def gpu_memory_mib():
    """Memory in use on each GPU."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return np.array([int(line) for line in subprocess.check_output(command, text=True).split()])


@pytest.mark.gpu
def test_workers_render_on_every_gpu():
    before = gpu_memory_mib()
    if len(before) < 2:
        pytest.skip("needs two GPUs")
    envs = make_vec("libero_spatial", 0, num_envs=2 * len(before), cameras=("agentview",), image_size=128)
    seen = envs.reset(seed=0, options={"init_state_id": [0] * envs.num_envs})[0]["agentview_image"]
    grown = gpu_memory_mib() - before
    envs.close()
    assert all(np.array_equal(picture, seen[0]) for picture in seen)
    assert (grown > 100).all(), f"MiB by GPU: {grown.tolist()}"  # each holds a scene's textures, 180 MiB
