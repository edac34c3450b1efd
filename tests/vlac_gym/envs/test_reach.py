import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from vlac_gym.envs.reach import ReachEnv
from vlac_gym.errors import ConfigError


def towards(state, ball):
    action = np.zeros(7, np.float32)
    action[:3] = np.clip((np.array(ball) - state[:3]) / 0.05, -1, 1)
    return action


@pytest.mark.parametrize(("task_id", "ball"), [(0, (0.15, 0.1, 0.1)), (1, (-0.15, -0.1, 0.2))])
def test_every_start_lets_the_ball_be_touched_within_the_limit(task_id, ball):
    env = ReachEnv(task_id)
    for state_id in range(50):
        observation, info = env.reset(options={"init_state_id": state_id})
        assert not info["success"]
        assert np.linalg.norm(observation["state"][:3] - ball) >= 0.2
        assert info["goal_progress"] == 0.0
        steps = 0
        while not info["success"]:
            observation, reward, terminated, truncated, info = env.step(towards(observation["state"], ball))
            steps += 1
        assert steps <= 10
        assert (reward, terminated, truncated, info["goal_progress"]) == (1.0, True, False, 1.0)


def test_one_unit_moves_the_hand_by_50_mm_and_progress_is_the_share_of_the_way():
    env = ReachEnv(0)
    before, _ = env.reset(options={"init_state_id": 3})
    action = np.array([1, 0, -0.4, 9, 9, 9, 9], np.float32)
    after, *_, info = env.step(action)
    assert (after["state"][:3] - before["state"][:3]).tolist() == pytest.approx([0.05, 0.0, -0.02])
    ball = np.array([0.15, 0.1, 0.1])
    start, now = (np.linalg.norm(o["state"][:3] - ball) for o in (before, after))
    assert info["goal_progress"] == pytest.approx(max(0.0, 1 - now / start), abs=1e-5)


def test_the_hand_stays_in_its_room_and_the_limit_truncates():
    env = ReachEnv(1, max_episode_steps=15)
    env.reset(seed=0)
    for step in range(1, 16):
        observation, _, _, truncated, info = env.step(np.full(7, 5.0))
        assert truncated == (step == 15)
    assert observation["state"][:3].tolist() == pytest.approx([0.3, 0.3, 0.3])
    assert info["elapsed_steps"] == 15


def test_the_pictures_show_hand_and_balls():
    env = ReachEnv(0, image_size=60)
    observation, _ = env.reset(options={"init_state_id": 0})
    x, y = observation["state"][:2]
    overview, wrist = observation["agentview_image"], observation["wrist_image"]
    assert overview[round((0.3 - y) * 100), round((0.3 + x) * 100)].tolist() == [40, 40, 40]
    assert overview[20, 45].tolist() == [220, 30, 30]
    assert overview[40, 15].tolist() == [30, 60, 220]
    assert wrist[30, 30].tolist() == [40, 40, 40]


def test_gymnasiums_checker_finds_nothing():
    check_env(ReachEnv(0), skip_render_check=True)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"reach task in 0\.\.1, got 2"):
        ReachEnv(2)
    with pytest.raises(ConfigError, match="image_size >= 16"):
        ReachEnv(image_size=8)
    env = ReachEnv()
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(7))
    with pytest.raises(ConfigError, match=r"init_state_id in 0\.\.49, got 50"):
        env.reset(options={"init_state_id": 50})
    with pytest.raises(ConfigError, match=r"got \['task_id'\]"):
        env.reset(options={"task_id": 1})
    env.reset()
    with pytest.raises(ConfigError, match="finite action of shape"):
        env.step(np.full(7, np.nan))
