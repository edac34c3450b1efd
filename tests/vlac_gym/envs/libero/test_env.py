"""`LiberoEnv` on the real simulator, through the shared warm env."""

import pickle
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256

import gymnasium as gym
import numpy as np
import pytest

from vlac_gym.envs import list_tasks
from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.errors import ConfigError, SimulatorError

STILL = np.array([0, 0, 0, 0, 0, 0, -1], dtype=np.float32)


@pytest.fixture
def env(libero_env):
    libero_env.reset(seed=0, options={"init_state_id": 0, "task_id": 0})
    return libero_env.unwrapped


@pytest.fixture
def count_renders(env, monkeypatch):
    simulator = env._running()
    rendered = []
    real = simulator.draw
    monkeypatch.setattr(simulator, "draw", lambda camera: (rendered.append(camera), real(camera))[1])
    return rendered


def roll(env, init_state_id, num_steps, seed=7):
    """States (num_steps + 1, n) of an episode with seeded random actions."""
    env.reset(options={"init_state_id": init_state_id})
    actions = np.random.default_rng(seed).uniform(-1, 1, (num_steps, 7))
    states = [env.physics_state()]
    for action in actions:
        env.step_unrendered(action)
        states.append(env.physics_state())
    return np.stack(states)


def test_reset_gives_upright_pictures_and_the_arms_state(env):
    observation, info = env.reset(options={"init_state_id": 3})
    assert {key: (value.shape, str(value.dtype)) for key, value in observation.items()} == {
        "agentview_image": ((64, 64, 3), "uint8"),
        "wrist_image": ((64, 64, 3), "uint8"),
        "state": ((8,), "float32"),
    }
    assert observation in env.observation_space
    assert info.pop("goal_progress") == pytest.approx(0.053, abs=0.01)
    assert info == {
        "task": "pick up the black bowl between the plate and the ramekin and place it on the plate",
        "task_suite": "libero_spatial",
        "task_id": 0,
        "init_state_id": 3,
        "success": False,
        "elapsed_steps": 0,
    }


def test_pictures_are_upright_and_not_mirrored(env):
    # From the agent's camera the plate is nearer than the stove, hence lower in the picture, and the cabinet
    # (dark) stands on the left: libero_spatial's table as its task texts describe it.
    picture = env.observe()["agentview_image"].astype(int).sum(axis=2)
    assert picture[28:48, :12].mean() < 0.5 * picture[28:48, 52:].mean()
    assert picture[:20, 24:40].std() > 2 * picture[56:, 24:40].std()  # the arm comes in from the top


def test_pictures_drawn_ahead_are_those_of_their_state_and_of_no_other(env, count_renders):
    action = np.full(7, 0.8)
    expected = []
    for _ in range(2):
        env.step_unrendered(action)
        expected.append(env.observe())
    assert not np.array_equal(expected[0]["wrist_image"], expected[1]["wrist_image"])
    env.reset(options={"init_state_id": 0})
    count_renders.clear()
    env.step_unrendered(action)
    env.draw_ahead()
    env.draw_ahead(["wrist", "agentview@shadow"])  # drawn already, and never ahead
    assert count_renders == ["agentview", "wrist"]
    for key, value in env.observe().items():
        np.testing.assert_array_equal(value, expected[0][key])
    env.draw_ahead(["wrist"])
    assert len(count_renders) == 2
    env.step_unrendered(action)
    env.draw_ahead(["wrist"])  # and the rest when it is looked at
    for key, value in env.observe().items():
        np.testing.assert_array_equal(value, expected[1][key])
    env.step_unrendered(action)
    env.draw_ahead()  # never looked at
    env.reset(options={"init_state_id": 0})
    env.step_unrendered(action)
    for key, value in env.observe().items():
        np.testing.assert_array_equal(value, expected[0][key])
    with pytest.raises(ConfigError, match="camera"):
        env.draw_ahead(["ceiling"])


def test_a_build_that_fails_ends_an_episode_whose_simulator_made_room_for_it(libero_env, monkeypatch):
    env = LiberoEnv(image_size=64, max_compiled_models=1)
    expected, _ = env.reset(options={"init_state_id": 0})
    env.step_unrendered(STILL)
    env.draw_ahead()

    def fail(*_args, **_options):
        raise SimulatorError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr("vlac_gym.envs.libero.env.LiberoSimulator", fail)
        with pytest.raises(SimulatorError, match="no memory"):
            env.reset(options={"task_id": 1})
    for use in (env.observe, env.render, lambda: env.step(STILL)):
        with pytest.raises(SimulatorError, match="Call reset"):
            use()
    np.testing.assert_equal(env.reset(options={"init_state_id": 0})[0], expected)
    env.close()


def test_state_holds_position_rotation_and_fingers(env):
    state = env.reset(options={"init_state_id": 0})[0]["state"]
    scene = env.scene
    np.testing.assert_allclose(state[:3], scene.end_effector_position, atol=1e-6)
    assert np.linalg.norm(state[3:6]) == pytest.approx(np.pi, abs=0.15)  # the hand points down
    assert state[6] - state[7] == pytest.approx(scene.gripper_opening, abs=1e-6)
    env.step(np.array([0, 0, 1, 0, 0, 0, -1]))
    for _ in range(4):
        observation, *_ = env.step(np.array([0, 0, 1, 0, 0, 0, 1]))
    assert observation["state"][2] > state[2] + 0.05  # positive z is up
    assert observation["state"][6] < state[6] - 0.005  # +1 closes


def test_same_start_and_actions_give_bitwise_the_same_states(env):
    first = roll(env, init_state_id=5, num_steps=60)
    roll(env, init_state_id=6, num_steps=3, seed=8)
    env.step_unrendered(np.full(7, 1.0))
    env.observe()
    assert np.array_equal(roll(env, init_state_id=5, num_steps=60), first)


def test_a_second_process_gives_bitwise_the_same_states(env):
    code = (
        "import hashlib, numpy as np\n"
        "from vlac_gym.envs.libero.simulator import LiberoSimulator\n"
        "from vlac_gym.envs.libero.tasks import get_task\n"
        "task = get_task('libero_spatial', 0)\n"
        "simulator = LiberoSimulator(task, image_size=16, settle_steps=10, start_timeout_s=300)\n"
        "simulator.start(2)\n"
        "simulator.start(5)\n"
        "states = [simulator.physics_state()]\n"
        "for action in np.random.default_rng(7).uniform(-1, 1, (60, 7)):\n"
        "    simulator.step(action)\n"
        "    states.append(simulator.physics_state())\n"
        "print(hashlib.sha256(np.stack(states).tobytes()).hexdigest())\n"
    )
    here = sha256(roll(env, init_state_id=5, num_steps=60).tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert there.returncode == 0, there.stderr
    assert there.stdout.strip() == here


def test_the_seed_draws_the_initial_state(env):
    drawn = [env.reset(seed=seed)[1]["init_state_id"] for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2]
    assert len({env._choose({})[1] for _ in range(20)}) > 5  # drawn anew at each reset, out of 50


def test_a_fixed_initial_state_yields_to_the_option():
    env = LiberoEnv(init_state_id=4)
    assert env._choose({})[1] == 4
    assert env._choose({"init_state_id": 9})[1] == 9


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.array([0, 0, 0, 0, 0, 0, np.nan]), "Expected a finite action, got .*nan"),
        (np.array([np.inf, 0, 0, 0, 0, 0, 0]), "Expected a finite action"),
        (np.zeros(8), r"Expected an action of shape \(7,\), got \(8,\)"),
        (np.zeros((2, 7)), "Step a chunk one row at a time"),
        ("left", "Expected an action of 7 numbers, got str"),
    ],
)
def test_bad_actions_are_refused_and_move_nothing(env, action, message):
    before = env.physics_state()
    with pytest.raises(ConfigError, match=message):
        env.step(action)
    assert np.array_equal(env.physics_state(), before)
    assert env.step(STILL)[4]["elapsed_steps"] == 1


def test_actions_beyond_the_box_are_clipped(env):
    env.reset(options={"init_state_id": 1})
    env.step_unrendered(np.array([1e6, 0, 0, 0, -1e6, 0, 1e6]))
    wild = env.physics_state()
    env.reset(options={"init_state_id": 1})
    env.step_unrendered(np.array([1, 0, 0, 0, -1, 0, 1]))
    assert np.array_equal(env.physics_state(), wild)


def test_unstable_physics_loses_the_episode_and_reset_mends_it(env, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log where it runs
    expected = env.physics_state()
    env._running()._data.qvel[:] = np.nan
    with pytest.raises(SimulatorError, match=r"became unstable .*call reset"):
        env.step(STILL)
    with pytest.raises(SimulatorError, match="Call reset"):
        env.step(STILL)
    env.reset(options={"init_state_id": 0})
    assert np.array_equal(env.physics_state(), expected)
    assert env.step(STILL)[4]["elapsed_steps"] == 1


def test_success_is_terminated_and_stepping_on_works(env, monkeypatch):
    verdicts = iter([False, True, True, False])
    monkeypatch.setattr(env._running(), "is_success", lambda: next(verdicts))
    steps = [env.step_unrendered(STILL) for _ in range(4)]
    assert steps == [(0.0, False, False), (1.0, True, False), (1.0, True, False), (0.0, False, False)]


def test_the_goals_verdict_is_the_simulators(env):
    scene = env.scene
    plate = scene.object_position("plate_1")
    simulator = env._running()
    address = simulator._model.joint("akita_black_bowl_1_joint0").qposadr[0]
    simulator._data.qpos[address : address + 3] = plate + np.array([0, 0, 0.01])
    for _ in range(6):
        _, reward, terminated, _, info = env.step(STILL)
    assert (reward, terminated, info["success"], info["goal_progress"]) == (1.0, True, True, 1.0)


def test_truncation_starts_at_the_step_limit(env, monkeypatch):
    monkeypatch.setattr(env, "_config", replace(env._config, step_limit=3))
    assert [env.step_unrendered(STILL)[2] for _ in range(4)] == [False, False, True, True]


def test_only_the_steps_that_are_looked_at_are_rendered(env, count_renders):
    for _ in range(5):
        env.step_unrendered(STILL)
    assert count_renders == []
    env.observe()
    env.render()
    env.observe()
    assert count_renders == ["agentview", "wrist"]


def test_a_repeated_start_renders_nothing(env, count_renders):
    first, _ = env.reset(options={"init_state_id": 0})
    count_renders.clear()
    first["agentview_image"][:] = 0  # a caller may write into what it got
    again, _ = env.reset(options={"init_state_id": 0})
    assert count_renders == []
    assert again["agentview_image"].any()


def test_one_camera_can_be_rendered_on_request(env, count_renders):
    env.step_unrendered(STILL)
    assert env.render_camera("wrist").shape == (64, 64, 3)
    assert count_renders == ["wrist"]
    with pytest.raises(ConfigError, match=r"Unknown camera 'top'\. Available: agentview, wrist"):
        env.render_camera("top")


def test_bad_options_are_refused_and_leave_the_episode_running(env):
    env.step_unrendered(STILL)
    for options, message in [
        ({"init_state_id": 50}, r"Expected init_state_id in 0\.\.49 .* got 50"),
        ({"init_state_id": "3"}, r"Expected init_state_id in 0\.\.49 .* got '3'"),
        ({"task_id": 10}, r"Expected task_id in 0\.\.9"),
        ({"init_state": 3}, r"Unknown reset option 'init_state'.*Did you mean 'init_state_id'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            env.reset(options=options)
    assert env.step(STILL)[4]["elapsed_steps"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task_suite": "libero_spacial"}, "Did you mean 'libero_spatial'"),
        ({"task_id": -1}, r"Expected task_id in 0\.\.9"),
        ({"init_state_id": 99}, r"Expected init_state_id in 0\.\.49"),
        ({"cameras": ("front",)}, "Unknown camera 'front'"),
        ({"cameras": ()}, "Expected one or two different cameras"),
        ({"image_size": 8}, r"Expected image_size to be a whole number in 16\.\.2048, got 8"),
        ({"max_episode_steps": 0}, "Expected max_episode_steps to be a whole number in 1"),
        ({"step_limit": 0}, "Expected step_limit to be a whole number in 1"),
        ({"step_limit": 5, "max_episode_steps": 5}, "Expected max_episode_steps or step_limit, got both"),
        ({"settle_steps": 1.5}, "Expected settle_steps to be a whole number"),
        ({"start_timeout_s": 0}, "Expected start_timeout_s above 0"),
        ({"render_mode": "human"}, "Unknown render mode 'human'"),
    ],
)
def test_bad_arguments_are_refused_at_construction(arguments, message):
    with pytest.raises(ConfigError, match=message):
        LiberoEnv(**arguments)


def test_an_unstarted_env_needs_a_reset():
    env = LiberoEnv()
    with pytest.raises(SimulatorError, match="Call reset"):
        env.step(STILL)
    env.close()
    env.close()


def test_construction_starts_nothing_and_pickles():
    env = gym.make("vlac_gym/Libero-v0", task_suite="libero_goal", task_id=3, image_size=32)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.unwrapped.task == list_tasks("libero_goal")[3]
    assert copy.observation_space == env.observation_space
    assert not copy.unwrapped._simulators


def test_step_limits_follow_the_suite_or_the_argument():
    assert LiberoEnv("libero_10").max_episode_steps == 520
    assert LiberoEnv("libero_10", max_episode_steps=30).max_episode_steps == 30
    assert gym.make("vlac_gym/Libero-v0", step_limit=512).unwrapped.max_episode_steps == 512
