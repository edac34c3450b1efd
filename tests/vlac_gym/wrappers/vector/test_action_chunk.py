"""Chunks of actions in many envs at once, on scripted envs that note what is rendered."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from vector_envs import LookingCritic, ShadedEnv, SingleEnvs, as_singles

from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.errors import ConfigError
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers import ActionChunk as SingleChunk
from vlac_gym.wrappers import VLACRewardWrapper as SingleWrapper
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper


def chunks(count: int, length: int) -> np.ndarray:
    return np.zeros((count, length, 7), np.float32)


def build(env_fns: list, autoreset: str = "NextStep") -> RolloutVectorEnv:
    return RolloutVectorEnv(env_fns, mode="sync", autoreset_mode=autoreset)


def rendered(env: gym.vector.VectorEnv) -> list[list[int]]:
    """The steps whose picture was taken, per env, since the last call."""
    steps = [sorted(set(noted)) for noted in env.unwrapped.get_attr("rendered")]
    for noted in env.unwrapped.get_attr("rendered"):
        noted.clear()
    return steps


@pytest.mark.parametrize("autoreset", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize(("length", "interval"), [(1, 1), (3, 1), (4, 2), (4, 4), (10, 3)])
@pytest.mark.parametrize("preset", ["vlac", "pbrs", None])
def test_chunks_in_n_envs_equal_chunks_in_n_single_envs(autoreset, length, interval, preset):
    options: dict[str, Any] = {"preset": preset, "done_interval": interval, "value_stride": 2}
    env_fns = [
        partial(ShadedEnv, shade=i, max_episode_steps=limit, success_steps=[7])
        for i, limit in enumerate([5, 8, 11])
    ]
    single: list[Any] = [fn() for fn in env_fns]
    vector: Any = build(env_fns, autoreset)
    if preset is not None:
        single = [SingleWrapper(env, LookingCritic(0.2), **options) for env in single]
        vector = VLACRewardWrapper(vector, LookingCritic(0.2), **options)
    singles = SingleEnvs([SingleChunk(env, length) for env in single], autoreset)
    vector = ActionChunk(vector, length)
    executed: list[list] = [[] for _ in env_fns]
    vector.reset(seed=5)
    singles.reset(seed=5)
    for _ in range(8):
        is_idle = [over and autoreset == "Disabled" for over in singles.is_over]
        result = vector.step(chunks(3, length))
        assert as_singles(result, is_idle) == singles.step(chunks(3, length))
        report = result[4]["chunk"]
        for i, count in enumerate(report["executed_steps"].tolist()):
            assert report["rewards"][i].shape == (length,)
            assert not report["rewards"][i, count:].any()
            executed[i] += report["rewards"][i, :count].tolist()
    if preset is None:
        # Step 7 succeeds in the two envs that get there, and ends their episode.
        assert all(sum(rewards[:7]) == (0.0 if i == 0 else 1.0) for i, rewards in enumerate(executed))


def test_report_says_what_was_executed_and_paid():
    env = ActionChunk(
        build([partial(ShadedEnv, success_steps=[n]) for n in (3, 9)], "Disabled"), chunk_size=4
    )
    env.reset(seed=0)
    observations, rewards, terminations, truncations, infos = env.step(chunks(2, 4))
    assert infos["chunk"]["executed_steps"].tolist() == [3, 4]
    assert infos["chunk"]["rewards"].tolist() == [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert rewards.tolist() == [1.0, 0.0]
    assert (terminations.tolist(), truncations.tolist()) == ([True, False], [False, False])
    assert observations["state"].ravel().tolist() == [3.0, 4.0]
    _, rewards, terminations, _, infos = env.step(chunks(2, 2))
    assert infos["chunk"]["executed_steps"].tolist() == [0, 2]
    assert (rewards.tolist(), terminations.tolist()) == ([0.0, 0.0], [True, False])


def test_only_checked_stride_and_last_steps_are_rendered():
    critic = ScriptedCritic(success_probs=[0.0] * 9, values=[[0.0, 0.25, 0.5]])
    fns = [partial(ShadedEnv, max_episode_steps=limit) for limit in (20, 7)]
    env = ActionChunk(VLACRewardWrapper(build(fns), critic, done_interval=4, value_stride=6), chunk_size=5)
    env.reset(seed=0)
    rendered(env)
    env.step(chunks(2, 5))
    # Step 4 is checked, step 5 is where the chunk ends.
    assert rendered(env) == [[4, 5], [4, 5]]
    env.step(chunks(2, 5))
    # Step 6 is in the value list, step 8 is checked; the second env ends at 7.
    assert rendered(env) == [[6, 8, 10], [6, 7]]
    # Where only the critic looks, only its camera is rendered.
    assert env.unwrapped.get_attr("observed") == ([0, 5, 10], [0, 5, 7])


def test_checks_at_chunk_ends_take_one_message_per_chunk_and_one_round():
    critic = LookingCritic(0.0)
    # Neither the simulator's limit nor its success is a reason to stop on the way.
    inner = build([partial(ShadedEnv, shade=i, max_episode_steps=3, success_steps=[2]) for i in range(2)])
    options = {"max_episode_steps": 50, "done_interval": 8, "value_stride": 16}
    env = ActionChunk(VLACRewardWrapper(inner, critic, **options), chunk_size=8)
    env.reset(seed=0)
    messages = []
    submit = inner.submit
    inner.submit = lambda commands: (messages.append(sorted(commands)), submit(commands))[1]
    env.step(chunks(2, 8))
    assert messages == [[0, 1]]
    assert critic.calls == [("success_prob", 2)]


def test_envs_that_are_out_of_phase_are_still_asked_together():
    critic = LookingCritic(0.0)
    fns = [partial(ShadedEnv, shade=i, max_episode_steps=limit) for i, limit in enumerate([50, 3])]
    env = ActionChunk(VLACRewardWrapper(build(fns), critic, done_interval=4, value_stride=2), chunk_size=4)
    env.reset(seed=0)
    env.step(chunks(2, 4))  # the second env ends at step 3
    env.step(chunks(2, 2))  # and is reset while the first goes on to step 6
    critic.seen.clear()
    # The first is checked at its step 8, the second at its limit, after a frame for the value list at step 2.
    env.step(chunks(2, 4))
    assert critic.seen == [[(0, 1, 8), (1, 2, 3)], [(1, 2, 3)]]


def test_stopped_inside_a_chunk_the_whole_observation_is_fresh():
    critic = ScriptedCritic(success_probs=[0.0, 0.95])
    env = ActionChunk(
        VLACRewardWrapper(build([ShadedEnv], "Disabled"), critic, value_stride=100), chunk_size=4
    )
    env.reset(seed=0)
    observations, _, terminations, _, infos = env.step(chunks(1, 4))
    assert terminations.tolist() == [True]
    assert infos["chunk"]["executed_steps"].tolist() == [2]
    assert observations["state"].tolist() == [[2.0]]
    assert observations["agentview_image"][0, 0, 0].tolist() == [1, 0, 2]


@pytest.mark.parametrize("shape", [(2, 7), (2, 0, 7), (2, 5, 7), (1, 2, 7), (2, 2, 6)])
def test_wrong_shapes_execute_nothing(shape):
    env = ActionChunk(build([ShadedEnv] * 2), chunk_size=4)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"Expected (chunks|actions) of shape \(2, "):
        env.step(np.zeros(shape))
    assert env.unwrapped.get_attr("num_steps") == (0, 0)


def test_bad_construction_is_refused():
    with pytest.raises(ConfigError, match="chunk_size"):
        ActionChunk(build([ShadedEnv]), chunk_size=0)
    with pytest.raises(ConfigError, match="Box action"):
        ActionChunk(build([partial(gym.make, "CartPole-v1")]), chunk_size=2)
    with pytest.raises(ConfigError, match=r"vlac_gym\.make_vec"):
        ActionChunk(gym.vector.SyncVectorEnv([ShadedEnv]), chunk_size=2)


def test_spaces_have_the_chunk_axis():
    env = ActionChunk(build([ShadedEnv] * 3), chunk_size=4)
    assert env.single_action_space.shape == (4, 7)
    assert env.action_space.shape == (3, 4, 7)
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[1].shape == (3,)
