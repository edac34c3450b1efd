"""What Gymnasium's own vector envs do and promise, of `RolloutVectorEnv`; docs/vector.md lists the differences."""

from copy import deepcopy
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from vlac_gym.errors import ConfigError
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers.vector import VLACRewardWrapper

NUM_ENVS = 3

SPACES = [
    spaces.Discrete(5),
    spaces.Discrete(3, start=2),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(4),
    spaces.Box(-1.0, 1.0, (2,), np.float32),
    spaces.Dict({"arm": spaces.Box(-1.0, 1.0, (3,), np.float32), "gripper": spaces.Discrete(2)}),
    spaces.Tuple((spaces.Discrete(3), spaces.Dict({"a": spaces.MultiBinary(2)}))),
]


class CountingEnv(gym.Env):
    """Counts steps up to `max_count`, where it terminates; notes its actions; observes what its space samples."""

    def __init__(self, space: spaces.Space[Any], max_count: int = 100, reward: Any = 1.0) -> None:
        self.observation_space, self.action_space = (
            deepcopy(space),
            deepcopy(space),
        )  # each with its own draws
        self.max_count, self.reward = max_count, reward
        self.taken: list[Any] = []
        self._count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self._count = 0
        return self.observation_space.sample(), {"draw": int(self.np_random.integers(10**6))}

    def step(self, action):
        assert action in self.action_space
        self.taken.append(action)
        self._count += 1
        return self.observation_space.sample(), self.reward, self._count >= self.max_count, False, {}


def build(space: spaces.Space[Any], mode: str = "sync", **options: Any) -> RolloutVectorEnv:
    return RolloutVectorEnv([partial(CountingEnv, space)] * NUM_ENVS, mode=mode, **options)


def comparable(infos: dict[str, Any]) -> dict[str, Any]:
    """Without what only our infos have; arrays of objects as lists, which numpy.testing looks into."""
    return {
        key: list(value) if isinstance(value, np.ndarray) and value.dtype.hasobject else value
        for key, value in infos.items()
        if key not in ("lost", "_lost")
    }


@pytest.mark.parametrize("autoreset", list(AutoresetMode))
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_it_returns_what_gymnasiums_sync_vector_env_returns(space, autoreset):
    fns = [partial(CountingEnv, space, max_count=2 + i) for i in range(NUM_ENVS)]
    ours = RolloutVectorEnv(fns, mode="sync", autoreset_mode=autoreset)
    theirs = SyncVectorEnv(fns, autoreset_mode=autoreset)
    assert ours.action_space == theirs.action_space
    assert ours.observation_space == theirs.observation_space
    for env in (ours, theirs):
        env.action_space.seed(5)
    expected, found = theirs.reset(seed=3), ours.reset(seed=3)
    np.testing.assert_equal(found, expected)
    for _ in range(2 if autoreset is AutoresetMode.DISABLED else 7):  # an env that is over idles in ours
        expected = theirs.step(theirs.action_space.sample())
        found = ours.step(ours.action_space.sample())
        assert found[0] in ours.observation_space
        np.testing.assert_equal((*found[:4], comparable(found[4])), (*expected[:4], comparable(expected[4])))
        finals = found[4].get("final_obs", []), expected[4].get("final_obs", [])
        assert [type(final) for final in finals[0]] == [type(final) for final in finals[1]]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_wrong_number_of_actions_moves_no_env(mode):
    env = build(spaces.Discrete(5), mode)
    env.reset(seed=0)
    for bad in ([1, 2], [1, 2, 3, 4], np.array([1, 2, 3, 4]), 0, np.array([[1, 2, 3]]), []):
        with pytest.raises(ConfigError, match=r"Expected actions of shape \(3,\), got .* nothing moved"):
            env.step(bad)
    env.step([1, 2, 3])
    env.step((1, 2, 4))
    assert env.get_attr("taken") == ([1, 1], [2, 2], [3, 4])
    env.close()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"arm": np.zeros((2, 3)), "gripper": [0, 1, 1]},
            r"actions\['arm'\] of shape \(3, 3\), got \(2, 3\)",
        ),
        (
            {"arm": np.zeros((3, 3)), "gripper": [0, 1, 1, 1]},
            r"actions\['gripper'\] of shape \(3,\), got \(4,\)",
        ),
        (
            {"arm": np.full((3, 3), np.nan), "gripper": [0, 1, 1]},
            r"finite actions\['arm'\].* envs \[0, 1, 2\]",
        ),
        ({"arm": np.zeros((3, 3))}, r"a dict with the keys \['arm', 'gripper'\]"),
        (np.zeros((3, 3)), r"a dict with the keys \['arm', 'gripper'\]"),
    ],
)
def test_wrong_parts_of_composite_actions_move_no_env(bad, message):
    env = build(SPACES[5])
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=message):
        env.step(bad)
    assert env.get_attr("taken") == ([], [], [])


def test_a_tuple_of_actions_of_another_length_moves_no_env():
    env = build(SPACES[6])
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="a tuple of 2"):
        env.step((np.zeros(3, np.int64),))
    with pytest.raises(ConfigError, match=r"actions\[1\]\['a'\] of shape \(3, 2\), got \(2, 2\)"):
        env.step((np.zeros(3, np.int64), {"a": np.zeros((2, 2), np.int8)}))
    env.step(env.action_space.sample())


@pytest.mark.parametrize("reward", [np.array([0.5]), np.array(0.5), np.float32(0.5), 0.5], ids=repr)
def test_rewards_of_one_number_are_taken_in_any_form(reward):
    env = RolloutVectorEnv([partial(CountingEnv, SPACES[0], reward=reward)] * 2, mode="sync")
    env.reset(seed=0)
    rewards = env.step([0, 1])[1]
    assert (rewards.dtype, rewards.tolist()) == (np.float64, [0.5, 0.5])


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_attributes_are_set_one_per_env_or_the_same_for_all(mode):
    env = build(SPACES[0], mode)
    env.set_attr("max_count", [4, 5, 6])
    assert env.get_attr("max_count") == (4, 5, 6)
    env.set_attr("max_count", 1)
    env.reset(seed=0)
    assert env.step([0, 0, 0])[2].tolist() == [True] * 3
    with pytest.raises(ConfigError, match="Expected 3 values of 'max_count', one per env, got 2"):
        env.set_attr("max_count", (1, 2))
    assert env.get_attr("max_count") == (1, 1, 1)
    env.close()


def test_an_attribute_is_set_where_a_wrapper_has_it():
    fns = [lambda: gym.wrappers.OrderEnforcing(CountingEnv(SPACES[0]))]
    env = RolloutVectorEnv(fns, mode="sync")
    env.set_attr("max_count", 1)
    env.reset(seed=0)
    assert env.step([0])[2].tolist() == [True]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_seeds_and_generators_are_those_of_the_envs(mode):
    env = build(SPACES[0], mode)
    env.reset(seed=42)
    assert env.np_random_seed == (42, 43, 44)
    env.reset(seed=None)
    assert env.np_random_seed == (42, 43, 44)
    env.reset(seed=[7, None, 9])
    assert env.np_random_seed == (7, 43, 9)
    draws = [int(rng.integers(10**6)) for rng in env.np_random]
    singles = [CountingEnv(SPACES[0]) for _ in range(NUM_ENVS)]
    for single, seed in zip(singles, (42, 43, 44)):
        single.reset(seed=seed)
        single.reset()
    singles[0].reset(seed=7)
    singles[1].reset()
    singles[2].reset(seed=9)
    assert draws == [int(single.np_random.integers(10**6)) for single in singles]
    env.close()


def test_a_group_shares_its_draws_and_a_seed_repeats_them():
    def starts(seed):
        env = RolloutVectorEnv([partial(CountingEnv, SPACES[0])] * 4, mode="sync", group_size=2)
        env.reset(seed=seed)
        return [env.reset()[1]["draw"].tolist() for _ in range(2)]

    first = starts(1)
    assert first == starts(1) != starts(2)
    assert all(draws[0] == draws[1] != draws[2] == draws[3] for draws in first)


def test_a_closed_env_says_so():
    env = build(SPACES[0])
    env.reset(seed=0)
    env.close()
    env.close()
    for call in (env.reset, lambda: env.step([0, 0, 0]), lambda: env.get_attr("max_count")):
        with pytest.raises(ClosedEnvironmentError, match="is closed"):
            call()


def test_metadata_of_the_env_class_stays_as_it_was():
    build(SPACES[0], autoreset_mode="SameStep")
    assert "autoreset_mode" not in CountingEnv.metadata


@pytest.mark.parametrize(
    "space",
    [spaces.Text(4), spaces.Sequence(spaces.Discrete(2)), spaces.Graph(spaces.Discrete(2), None)],
    ids=str,
)
def test_observations_without_a_fixed_shape_are_refused(space):
    with pytest.raises(ConfigError, match="Expected the observation as one of Box, Discrete"):
        build(space)


def test_the_reward_wrapper_hands_the_interface_on():
    class Picturing(CountingEnv):
        def __init__(self):
            super().__init__(spaces.Box(0, 255, (4, 4, 3), np.uint8))
            self.action_space = spaces.Discrete(5)

    env = VLACRewardWrapper(
        RolloutVectorEnv([Picturing] * 2, mode="sync"), "scripted:0.1", task="count", max_episode_steps=3
    )
    env.reset(seed=4)
    env.env.set_attr("reward", 2.0)
    assert env.np_random_seed == (4, 5)
    for bad in ([1], [1, 2, 3]):
        with pytest.raises(ConfigError, match="Expected actions of shape"):
            env.step(bad)
    assert env.step([1, 2])[4]["env_reward"].tolist() == [2.0, 2.0]
