"""Building, sharing and replacing compiled tasks; agreement with LIBERO's own environment."""

import time
import weakref

import numpy as np
import pytest

from vlac_gym.envs import gl
from vlac_gym.envs.libero import LiberoEnv, models
from vlac_gym.envs.libero import simulator as simulator_module
from vlac_gym.envs.libero.simulator import LiberoSimulator
from vlac_gym.envs.libero.tasks import get_task
from vlac_gym.errors import SimulatorError


def build(task, start_timeout_s=60.0):
    return LiberoSimulator(task, image_size=32, settle_steps=0, start_timeout_s=start_timeout_s)


@pytest.fixture
def failing_placement(monkeypatch):
    """Makes every attempt to build a task raise; the error is chosen by the test."""
    real = simulator_module._load_libero
    attempts = []

    def install(make_error):
        def load(task):
            parts = real(task)

            class Failing(parts.domain_class):
                def _reset_internal(self):
                    attempts.append(self)
                    raise make_error(parts.placement_error)

                def _assert_problem_name(self):
                    pass

            return parts._replace(domain_class=Failing)

        monkeypatch.setattr(simulator_module, "_load_libero", load)
        return attempts

    return install


def test_placement_that_always_fails_ends(libero_env, failing_placement):
    attempts = failing_placement(lambda error: error("no room"))
    with pytest.raises(SimulatorError, match="could not be placed in 20 attempts"):
        build(get_task("libero_spatial", 0))
    assert len(attempts) == 20


def test_building_stops_at_its_deadline(libero_env, failing_placement):
    def fail_slowly(error):
        time.sleep(0.2)
        return error("no room")

    attempts = failing_placement(fail_slowly)
    with pytest.raises(SimulatorError, match="passed its deadline after 1 attempts"):
        build(get_task("libero_spatial", 0), start_timeout_s=0.2)
    assert len(attempts) == 1


@pytest.mark.parametrize("error_class", [KeyboardInterrupt, ZeroDivisionError])
def test_interrupts_and_bugs_come_through_at_once(libero_env, failing_placement, error_class):
    attempts = failing_placement(lambda error: error_class())
    users = [compiled.num_users for compiled in models._models.values()]
    with pytest.raises(error_class):
        build(get_task("libero_spatial", 0))
    assert len(attempts) == 1
    assert [compiled.num_users for compiled in models._models.values()] == users


def test_a_model_that_does_not_compile_is_a_simulator_error(libero_env):
    mujoco = libero_env.unwrapped._running()._mujoco
    with pytest.raises(SimulatorError, match="MuJoCo cannot compile the task's model"):
        models.acquire_model(mujoco, "<mujoco><asset><mesh file='/nowhere.stl'/></asset></mujoco>", "")


def test_building_leaves_numpys_global_generator_alone(libero_env):
    np.random.seed(123)
    expected = np.random.random()
    np.random.seed(123)
    build(get_task("libero_spatial", 0)).close()
    assert np.random.random() == expected


def test_envs_of_one_task_share_the_compiled_model_and_not_the_state(libero_env):
    first = libero_env.unwrapped
    first.reset(options={"init_state_id": 0, "task_id": 0})
    before = first.physics_state()
    second = LiberoEnv(cameras=("agentview",), image_size=32)
    observation, _ = second.reset(options={"init_state_id": 1})
    assert observation["agentview_image"].shape == (32, 32, 3)
    assert second._running()._model is first._running()._model
    for _ in range(3):
        second.step_unrendered(np.ones(7))
    assert np.array_equal(first.physics_state(), before)
    second.close()
    assert first.observe()["agentview_image"].any()  # closing the second leaves the first's textures


def test_a_start_that_another_env_settled_is_taken_over(libero_env, monkeypatch):
    first = libero_env.unwrapped
    seen, _ = first.reset(options={"init_state_id": 8, "task_id": 0})
    physics, control = first.physics_state(), first._running()._control.snapshot()
    second = LiberoEnv(image_size=64)
    monkeypatch.setattr(LiberoSimulator, "_settle", None)
    monkeypatch.setattr(LiberoSimulator, "draw", None)
    taken, _ = second.reset(options={"init_state_id": 8})
    assert np.array_equal(second.physics_state(), physics)
    np.testing.assert_equal(second._running()._control.snapshot(), control)
    assert all(np.array_equal(taken[key], seen[key]) for key in seen)
    monkeypatch.undo()
    for env in (first, second):
        env.step_unrendered(np.full(7, 0.5))
    assert np.array_equal(second.physics_state(), first.physics_state())
    second.close()


def test_starts_settled_otherwise_are_not_taken_over(libero_env):
    first = libero_env.unwrapped
    first.reset(options={"init_state_id": 8, "task_id": 0})
    second = LiberoEnv(cameras=("agentview",), image_size=32, settle_steps=1)
    observation, _ = second.reset(options={"init_state_id": 8})
    assert second.physics_state()[0] == pytest.approx(0.05)  # seconds; ten steps take half a second
    assert observation["agentview_image"].shape == (32, 32, 3)
    second.close()


def test_solving_once_begins_alike_and_goes_on_by_the_solvers_tolerance(libero_env):
    exact = libero_env.unwrapped
    once = LiberoEnv(cameras=("agentview",), image_size=32, repeat_solves=False)
    again = LiberoEnv(cameras=("agentview",), image_size=32, repeat_solves=False)
    episode = {"init_state_id": 11, "task_id": 0}
    once.reset(options=episode)  # it settles the start, with the repetitions
    for env in (exact, again, once):
        env.reset(options=episode)
        assert np.array_equal(env.physics_state(), exact.physics_state())
    for action in np.random.default_rng(0).uniform(-1, 1, (10, 7)):
        for env in (exact, again, once):
            env.step_unrendered(action)
        assert np.array_equal(again.physics_state(), once.physics_state())
    drift = np.abs(once.physics_state() - exact.physics_state()).max()
    assert 0.0 < drift < 1e-3  # without repetitions LIBERO's states are missed, by little
    once.close()
    exact.reset(options=episode)
    again.reset(options=episode)
    assert np.array_equal(again.physics_state(), exact.physics_state())
    again.close()


@pytest.mark.skipif(gl.probe_egl() is not None, reason="EGL is not installed")
def test_asking_which_gpus_start_takes_no_context_away(libero_env):
    env = libero_env.unwrapped
    env.reset(options={"init_state_id": 3, "task_id": 0})
    before = env.render_camera("agentview@diffuse")  # drawn anew at every call
    assert any(gl._egl_starts(device) for device in range(len(gl._egl_devices())))
    assert np.array_equal(env.render_camera("agentview@diffuse"), before)


def test_a_closed_simulator_leaves_nothing_behind(libero_env):
    simulator = build(get_task("libero_spatial", 0))
    domain = weakref.ref(simulator.domain)
    assert domain() is not None
    simulator.close()
    simulator.close()
    assert domain() is None


def test_tasks_switch_within_one_env_and_old_models_go(libero_env):
    env = LiberoEnv(image_size=32, cameras=("agentview",), settle_steps=1, max_compiled_models=2)
    states = {}
    for task_id in (0, 1):
        _, info = env.reset(options={"task_id": task_id, "init_state_id": 0})
        assert info["task_id"] == task_id
        states[task_id] = env.physics_state()
    assert env.reset(options={"init_state_id": 0})[1]["task_id"] == 1  # a switch stays
    assert list(env._simulators) == [0, 1]
    env.reset(options={"task_id": 0, "init_state_id": 0})
    assert np.array_equal(env.physics_state(), states[0])
    _, info = env.reset(options={"task_id": 2, "init_state_id": 0})
    assert list(env._simulators) == [0, 2]
    assert info["task"] == "pick up the black bowl from table center and place it on the plate"
    env.close()
    env.close()
    assert sum(compiled.num_users for compiled in set(models._models.values())) == 1  # the fixture's


def libero_reference(task, **options):
    from libero.libero.envs.env_wrapper import ControlEnv

    reference = ControlEnv(bddl_file_name=str(task.bddl_file), **options)
    reference.seed(simulator_module.PLACEMENT_SEED)
    reference.reset()
    return reference


@pytest.mark.filterwarnings("ignore")
def test_states_are_those_of_liberos_own_env(libero_env):
    env = libero_env.unwrapped
    env.reset(options={"init_state_id": 3, "task_id": 0})
    reference = libero_reference(env.task, has_offscreen_renderer=False, use_camera_obs=False)
    reference.set_init_state(env.task.load_init_states()[3])
    for _ in range(10):
        reference.step(list(simulator_module.SETTLING_ACTION))
    assert np.array_equal(reference.get_sim_state(), env.physics_state())
    for action in np.random.default_rng(0).uniform(-1.2, 1.2, (25, 7)):
        reference.step(action)
        env.step_unrendered(action)
        assert np.array_equal(reference.get_sim_state(), env.physics_state())
    reference.env.sim.forward()
    reference._update_observables(force=True)
    seen = reference.env._get_observations()
    state = env.observe()["state"]
    np.testing.assert_array_equal(state[:3], seen["robot0_eef_pos"].astype(np.float32))
    np.testing.assert_array_equal(state[6:], seen["robot0_gripper_qpos"].astype(np.float32))


def test_memory_stays_where_the_allocator_cannot_give_it_back(monkeypatch):
    monkeypatch.setattr(models.ctypes, "CDLL", lambda name: object())
    models.trim_memory()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_pictures_are_those_of_liberos_own_env(libero_env):
    env = libero_env.unwrapped
    env.reset(options={"init_state_id": 3, "task_id": 0})
    reference = libero_reference(env.task, camera_heights=64, camera_widths=64)
    reference.set_init_state(env.task.load_init_states()[3])
    for _ in range(10):
        reference.step(list(simulator_module.SETTLING_ACTION))
    reference.env.sim.forward()
    reference._update_observables(force=True)
    seen = reference.env._get_observations()
    ours = env.observe()
    assert np.array_equal(seen["agentview_image"][::-1], ours["agentview_image"])
    assert np.array_equal(seen["robot0_eye_in_hand_image"][::-1], ours["wrist_image"])
