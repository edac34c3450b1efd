"""Workers whose pictures are drawn by processes that they share: what they show, and what a crash leaves."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from drawn_scene import DrawnEnv, DrawnScene
from vector_envs import ShadedEnv

from vlac_gym.envs.gl import renders_in_software
from vlac_gym.envs.offscreen import OffscreenRenderer
from vlac_gym.errors import ConfigError
from vlac_gym.vector import RolloutVectorEnv, config, make_vec, process_executor

mujoco = pytest.importorskip("mujoco")

WAIT_S = 60.0
STOP_ENV_1 = np.array([[0.1, 0, 0, 0, 0, 0, 0], [0.1, 1, 0, 0, 0, 0, 0], [0.1, 0, 0, 0, 0, 0, 0]], np.float32)


def moves(*distances):
    actions = np.zeros((len(distances), 7), np.float32)
    actions[:, 0] = distances
    return actions


def pictures_at(*positions):
    """What this process's own renderer shows of the scene."""
    scene, renderer, found = DrawnScene(mujoco), OffscreenRenderer(mujoco), []
    for position in positions:
        scene.move(position)
        found.append(renderer.draw(scene.model, scene.data, "above", 48).read())
    renderer.close()
    return np.array(found)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids):
    deadline = time.monotonic() + WAIT_S
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "a process outlived its vector env"
        time.sleep(0.05)


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_workers_share_the_render_processes_and_see_their_own_pictures(context):
    fns = [partial(DrawnEnv, 0.1 * i) for i in range(4)]
    env = RolloutVectorEnv(
        fns, render_processes=2, envs_per_worker=2 if context == "spawn" else 1, context=context
    )
    observations, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observations["image"], pictures_at(0.0, 0.1, 0.2, 0.3))
    observations = env.step(moves(0.25, 0.25, 0.5, 0.0))[0]
    np.testing.assert_array_equal(observations["image"], pictures_at(0.25, 0.35, 0.7, 0.3))
    assert env.call("renderer_name") == ("RemoteRenderer",) * 4
    assert len(set(env.render_pids)) == 2
    processes = env.render_pids + env.worker_pids
    env.close()
    assert not any(map(is_running, processes))
    assert env.render_pids == ()


def test_each_worker_draws_itself_unless_told_otherwise():
    env = RolloutVectorEnv([DrawnEnv])
    env.reset(seed=0)
    assert env.call("renderer_name") == ("OffscreenRenderer",)
    assert env.render_pids == ()
    env.close()


def test_no_more_render_processes_than_workers_and_each_on_its_device(monkeypatch):
    started, lines = [], []

    class Process:
        def __init__(self, context, number, render_devices):
            self.line = f"line {number}"
            started.append((number, render_devices))

        def ask_to_stop(self):
            pass

        def stop(self, deadline_s):
            started.remove(started[-1])

    class Recorded:
        def __init__(self, context, env_fns, space, memory, count, place):
            self.indices = tuple(env_fns)
            lines.append(place.render_line)
            if place.number == 4:
                raise InterruptedError

        def ask_to_stop(self):
            pass

        def stop(self, deadline_s):
            assert started  # render processes outlive the workers

    monkeypatch.setattr(process_executor, "RenderProcess", Process)
    monkeypatch.setattr(process_executor, "Worker", Recorded)
    with pytest.raises(InterruptedError):
        RolloutVectorEnv([ShadedEnv] * 9, envs_per_worker=2, render_processes=2, render_devices=(1, 0))
    assert lines == ["line 0", "line 1", "line 0", "line 1", "line 0"]
    assert started == []
    lines.clear()
    monkeypatch.setattr(Process, "stop", lambda self, deadline_s: None)
    with pytest.raises(InterruptedError):
        RolloutVectorEnv([ShadedEnv] * 5, render_processes=7, render_devices=(1, 0))
    assert started == [(number, (1, 0)) for number in range(5)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"render_processes": -1}, "render_processes >= 0, got -1"),
        ({"render_processes": 1, "mode": "sync"}, "render_processes=1 with mode='async' only"),
        ({"render_processes": 1, "mode": lambda *_, **__: None}, "render_processes=1 with mode='async'"),
    ],
)
def test_what_cannot_be_is_refused_before_a_process_starts(monkeypatch, options, message):
    monkeypatch.setattr(process_executor, "RenderProcess", None)
    with pytest.raises(ConfigError, match=message):
        RolloutVectorEnv([ShadedEnv], **options)


def test_systems_without_anonymous_files_are_refused(monkeypatch):
    monkeypatch.delattr(config.os, "memfd_create")
    with pytest.raises(ConfigError, match=rf"render_processes=0 on {sys.platform}, got 2"):
        RolloutVectorEnv([ShadedEnv], render_processes=2)


def test_a_worker_that_dies_leaves_the_others_their_pictures_and_its_successor_draws_again():
    env = RolloutVectorEnv([DrawnEnv] * 3, render_processes=1, autoreset_mode="SameStep")
    env.reset(seed=0)
    render_pids = env.render_pids
    observations, _, _, truncations, infos = env.step(STOP_ENV_1)
    assert infos["lost"].tolist() == truncations.tolist() == [False, True, False]
    np.testing.assert_array_equal(observations["image"], pictures_at(0.1, 0.0, 0.1))
    np.testing.assert_array_equal(env.step(moves(0.1, 0.3, 0.0))[0]["image"], pictures_at(0.2, 0.3, 0.1))
    assert env.render_pids == render_pids
    env.close()


def test_a_render_process_that_dies_is_replaced_and_only_its_workers_episodes_are_lost():
    env = RolloutVectorEnv([DrawnEnv] * 3, render_processes=2, autoreset_mode="Disabled")
    env.reset(seed=0)
    render_pids, worker_pids = env.render_pids, env.worker_pids
    os.kill(render_pids[1], signal.SIGSTOP)
    env.step_async(moves(0.1, 0.1, 0.2))
    os.kill(render_pids[1], signal.SIGKILL)
    observations, _, _, truncations, infos = env.step_wait()
    assert infos["lost"].tolist() == truncations.tolist() == [False, True, False]
    assert f"render process 1 (process id {render_pids[1]}) is gone" in infos["lost_reason"][1]
    np.testing.assert_array_equal(observations["image"][[0, 2]], pictures_at(0.1, 0.2))
    env.reset(options={"reset_mask": np.array([False, True, False])})
    np.testing.assert_array_equal(env.step(moves(0.1, 0.3, 0.0))[0]["image"], pictures_at(0.2, 0.3, 0.2))
    assert [old == new for old, new in zip(render_pids, env.render_pids)] == [True, False]
    assert [old == new for old, new in zip(worker_pids, env.worker_pids)] == [True, False, True]
    env.close()


def test_a_render_process_that_is_found_dead_is_replaced_before_the_next_command():
    env = RolloutVectorEnv([DrawnEnv] * 2, render_processes=1, autoreset_mode="SameStep")
    env.reset(seed=0)
    os.kill(env.render_pids[0], signal.SIGKILL)
    wait_until_gone(env.render_pids)
    observations, _, _, truncations, infos = env.step(moves(0.1, 0.1))
    assert infos["lost"].tolist() == truncations.tolist() == [True, True]
    np.testing.assert_array_equal(observations["image"], pictures_at(0.0, 0.0))
    np.testing.assert_array_equal(env.step(moves(0.1, 0.2))[0]["image"], pictures_at(0.1, 0.2))
    env.close()


SCRIPT = """
import numpy as np, os, sys
from drawn_scene import DrawnEnv
from vlac_gym.vector import RolloutVectorEnv

if __name__ == "__main__":
    env = RolloutVectorEnv([DrawnEnv] * 2, render_processes=1, context=sys.argv[1])
    env.reset(seed=0)
    print(*env.render_pids, *env.worker_pids, flush=True)
    os.kill(os.getpid(), 9) if sys.argv[2] == "killed" else None
"""


@pytest.mark.parametrize(
    ("context", "end"), [("spawn", "killed"), ("forkserver", "killed"), ("spawn", "normal")]
)
def test_render_processes_end_with_their_process_however_it_ends(tmp_path, context, end):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = [str(Path(__file__).parents[2] / "support"), str(Path(__file__).parents[3])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(script), context, end], capture_output=True, text=True, timeout=120, env=environ
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 3, done.stderr
    wait_until_gone(pids)
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("pymp-")] == ["script.py"]


def what_is_open():
    return {
        "fds": len(os.listdir("/proc/self/fd")),
        "named": sorted(os.listdir("/dev/shm")),
    }


def test_nothing_is_left_behind():
    def use(kill):
        env = RolloutVectorEnv([DrawnEnv] * 2, render_processes=1, autoreset_mode="Disabled")
        env.reset(seed=0)
        if kill:
            os.kill(env.worker_pids[0], signal.SIGKILL)
            env.step(moves(0.0, 0.0))
            os.kill(env.render_pids[0], signal.SIGKILL)
            env.step(moves(0.0, 0.0))
        env.close()

    use(kill=False)
    before = what_is_open()
    use(kill=True)
    assert what_is_open() == before


def assert_libero_looks_the_same(own, image_size):
    """Plays two tasks in envs that draw themselves and through a render process."""
    options = {"num_envs": 2, "image_size": image_size, "autoreset_mode": "SameStep", "max_episode_steps": 2}
    seen = []
    for how in (own, {"render_processes": 1}):
        env = make_vec("libero_spatial", (0, 3), **options, **how)
        rng = np.random.default_rng(0)
        observations = [env.reset(seed=0, options={"init_state_id": [1, 2]})[0]]
        observations += [env.step(rng.uniform(-1, 1, (2, 7)).astype(np.float32))[0] for _ in range(3)]
        seen.append(observations)
        env.close()
    for alone, through in zip(*seen):
        for key in ("agentview_image", "wrist_image", "state"):
            np.testing.assert_array_equal(through[key], alone[key])


def test_libero_looks_the_same_through_a_render_process():
    assert_libero_looks_the_same({"mode": "sync"}, image_size=32)


@pytest.mark.gpu
def test_libero_looks_the_same_through_a_render_process_on_a_gpu():
    assert not renders_in_software(), (
        "Mesa's software device renders; unset MUJOCO_EGL_DEVICE_ID or mend the driver"
    )
    assert_libero_looks_the_same({"render_processes": 0}, image_size=256)
