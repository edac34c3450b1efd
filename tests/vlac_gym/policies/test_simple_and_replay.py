"""Random, zero and replayed actions."""

import json

import gymnasium as gym
import numpy as np
import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.policies import make_policy
from vlac_gym.policies.replay import ReplayPolicy, load_actions


class SpaceOnlyEnv(gym.Env):
    def __init__(self, space):
        self.action_space = space


BOX = gym.spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 0.5], np.float32))


def draws(seed, count=200):
    policy = make_policy("random")
    policy.reset(SpaceOnlyEnv(BOX), seed)
    return np.stack([policy.act(None, {}) for _ in range(count)])


def test_random_actions_fill_the_bounds_and_repeat_with_the_seed():
    actions = draws(seed=3)
    assert actions.dtype == np.float32
    assert (actions >= BOX.low).all()
    assert (actions <= BOX.high).all()
    assert actions[:, 0].min() < -0.9
    assert actions[:, 1].max() > 0.45
    np.testing.assert_array_equal(actions, draws(seed=3))
    assert not np.array_equal(actions, draws(seed=4))


def test_random_refuses_spaces_without_bounds():
    unbounded = gym.spaces.Box(-np.inf, np.inf, (2,))
    with pytest.raises(ConfigError, match="bounded action space"):
        make_policy("random").reset(SpaceOnlyEnv(unbounded), 0)
    with pytest.raises(ConfigError, match="Expected a Box action space, got Discrete"):
        make_policy("random").reset(SpaceOnlyEnv(gym.spaces.Discrete(3)), 0)


@pytest.mark.parametrize("name", ["random", "zero", "expert"])
def test_acting_before_reset_is_an_error(name):
    with pytest.raises(ConfigError, match=f"Policy '{name}' was asked to act before reset"):
        make_policy(name).act(None, {})


def test_zero_gives_zeros_of_the_action_shape():
    policy = make_policy("zero")
    policy.reset(SpaceOnlyEnv(BOX))
    np.testing.assert_array_equal(policy.act(None, {}), np.zeros(2, np.float32))


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_replay_gives_the_file_in_order_then_stands_still_with_its_gripper(tmp_path, kind):
    actions = np.array([[0.5, 0.25], [-0.5, 0.125]])
    path = tmp_path / f"actions.{kind}"
    if kind == "npy":
        np.save(path, actions)
    else:
        np.savez(path, actions=actions, other=np.zeros(3))
    policy = make_policy(f"replay:{path}")
    for _ in range(2):  # a second reset starts again
        policy.reset(SpaceOnlyEnv(BOX), seed=1)
        given = np.stack([policy.act(None, {}) for _ in range(4)])
        np.testing.assert_array_equal(given, [[0.5, 0.25], [-0.5, 0.125], [0.0, 0.125], [0.0, 0.125]])
        assert given.dtype == np.float32


def test_changing_a_replayed_action_leaves_the_recording_alone():
    policy = ReplayPolicy(np.array([[0.5, 0.25]], np.float32))
    policy.reset(SpaceOnlyEnv(BOX))
    policy.act(None, {})[:] = 9.0
    policy.reset(SpaceOnlyEnv(BOX))
    np.testing.assert_array_equal(policy.act(None, {}), [0.5, 0.25])


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros(7), r"Expected actions as numbers \(T, A\) with T >= 1, got float64 \(7,\)"),
        (np.zeros((0, 7)), r"got float64 \(0, 7\)"),
        (np.array([["a"]]), "Expected actions as numbers"),
        (np.array([[0.0, 1.0], [0.0, np.nan]]), r"Expected finite actions, got \[0.0, nan\] in row 1"),
    ],
)
def test_replay_refuses_malformed_actions(actions, message):
    with pytest.raises(ConfigError, match=message):
        ReplayPolicy(actions)


def test_replay_refuses_an_env_with_other_actions():
    with pytest.raises(ConfigError, match=r"shape \(2,\) for this environment, got \(3,\)"):
        ReplayPolicy(np.zeros((4, 3), np.float32)).reset(SpaceOnlyEnv(BOX))


def test_action_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"No action file at .*missing\.npy"):
        load_actions(tmp_path / "missing.npy")
    text = tmp_path / "notes.npy"
    text.write_text("not an array")
    with pytest.raises(ConfigError, match=r"notes\.npy' to be a \.npy or \.npz file"):
        load_actions(text)
    np.savez(tmp_path / "a.npz", states=np.zeros(2))
    with pytest.raises(ConfigError, match=r"'actions' in .*found states"):
        load_actions(tmp_path / "a.npz")


def test_a_rollouts_own_steps_are_replayed(tmp_path):
    file = tmp_path / "steps.jsonl"
    rows = [(0, [0.1, -1.0]), (0, [0.2, 1.0]), (3, [0.3, 1.0])]
    lines = [json.dumps({"episode": n, "step": 1, "action": action, "reward": 0.0}) for n, action in rows]
    file.write_text("".join(f"{line}\n" for line in lines))
    np.testing.assert_array_equal(load_actions(file, episode=0), np.float32([[0.1, -1.0], [0.2, 1.0]]))
    policy = make_policy(f"replay:{file}?episode=3")
    policy.reset(SpaceOnlyEnv(BOX))
    np.testing.assert_array_equal(policy.act(None, {}), np.float32([0.3, 1.0]))
    with pytest.raises(
        ConfigError, match=r"which episode of .* holds 0, 3\. Write replay:.*\?episode=NUMBER"
    ):
        make_policy(f"replay:{file}")
    with pytest.raises(ConfigError, match=r"episode 1 of .* holds 0, 3"):
        load_actions(file, episode=1)
    file.write_text(lines[2])
    assert load_actions(file).shape == (1, 2)
    file.write_text("hello")
    with pytest.raises(ConfigError, match=r"to be a rollout's steps\.jsonl, but it is not"):
        load_actions(file)
