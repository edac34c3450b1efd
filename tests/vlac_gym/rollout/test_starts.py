from functools import partial

import numpy as np
import pytest

from vlac_gym.envs.reach import ReachEnv
from vlac_gym.errors import ConfigError
from vlac_gym.rollout.starts import (
    deal_starts,
    draw_starts,
    parse_states,
    play_starts,
    played_episodes,
    success_rates,
)
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper


def make_env(num_envs, step_limit=4, autoreset_mode="Disabled"):
    fns = [partial(ReachEnv, 0, image_size=16, max_episode_steps=step_limit)] * num_envs
    env = RolloutVectorEnv(fns, mode="sync", autoreset_mode=autoreset_mode)
    return ActionChunk(VLACRewardWrapper(env, "oracle", max_episode_steps=step_limit, done_interval=2), 2)


def stay(observations):
    return np.zeros((len(observations["state"]), 2, 7), np.float32)


def reach(observations):
    """Envs 0 and on go to the red ball, which takes them 4 to 10 steps."""
    way = (np.array([0.15, 0.1, 0.1]) - observations["state"][:, :3]) / 0.05
    action = np.concatenate([np.clip(way, -1, 1), np.zeros((len(way), 4))], axis=1)
    return np.repeat(action[:, None], 2, axis=1).astype(np.float32)


def test_each_env_plays_its_starts_in_order_and_idles_after_the_last():
    env = make_env(3)
    steps = list(play_starts(env, [[7, 3], [5], []], stay, mode="train", seed=0))

    played = [(e.env_index, e.info["init_state_id"]) for step in steps for e in step.ended]
    assert played == [(0, 7), (1, 5), (0, 3)]
    assert [step.is_playing.tolist() for step in steps] == [
        [True, True, False],
        [True, True, False],
        [True, False, False],
        [True, False, False],
    ]
    assert all(step.executed_steps[0] == 2 for step in steps)
    assert all(step.env_s > 0 and step.critic_s >= 0 for step in steps)


def test_the_episodes_know_their_steps_and_rounds():
    env = make_env(2)
    steps = list(play_starts(env, [[7, 3], [5]], stay, mode="train", seed=0))
    episodes = played_episodes(steps)
    assert [(e.finished.env_index, e.round, e.steps) for e in episodes] == [
        (0, 0, (0, 1)),
        (1, 0, (0, 1)),
        (0, 1, (2, 3)),
    ]


def test_success_rates_are_the_simulators_by_task():
    env = make_env(4, step_limit=12)

    def act(observations):
        chunk = reach(observations)
        chunk[[1, 2]] = 0.0
        return chunk

    rates = success_rates(
        play_starts(env, [[0, 1], [2], [3], []], act, mode="eval", seed=0), ["a", "a", "b", "c"]
    )
    assert rates == {
        "eval/success_rate": 0.5,
        "eval/episodes": 4.0,
        "eval/lost_episodes": 0.0,
        "eval/success_rate_a": pytest.approx(2 / 3),
        "eval/success_rate_b": 0.0,
        "eval/success_rate_c": None,
    }


def test_draws_repeat_no_state_until_all_were_drawn_and_groups_share_them():
    starts = draw_starts(
        [0, 1, 2, 3], num_envs=4, episodes_per_env=2, group_size=2, rng=np.random.default_rng(0)
    )
    assert starts[0] == starts[1]
    assert starts[2] == starts[3]
    assert sorted(starts[0] + starts[2]) == [0, 1, 2, 3]
    many = draw_starts([0, 1], num_envs=5, episodes_per_env=1, group_size=1, rng=np.random.default_rng(0))
    assert sorted(state for own in many for state in own) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])


def test_dealing_gives_every_state_once():
    assert deal_starts([5, 6, 7], 2) == [[5, 7], [6]]
    assert deal_starts([5], 2) == [[5], []]


def test_states_are_read_from_text():
    assert parse_states("0-2,7") == [0, 1, 2, 7]
    for wrong in ("", "3-", "1,1", "5-3", "a"):
        with pytest.raises(ConfigError, match="initial state"):
            parse_states(wrong)


def test_another_autoreset_mode_or_number_of_lists_is_refused():
    with pytest.raises(ConfigError, match="got 1 lists"):
        play_starts(make_env(2), [[0]], stay, mode="train", seed=0)
    with pytest.raises(ConfigError, match="'Disabled', got 1 lists and"):
        play_starts(make_env(1, autoreset_mode="SameStep"), [[0]], stay, mode="train", seed=0)
