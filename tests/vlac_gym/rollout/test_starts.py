from functools import partial

import numpy as np

from vlac_gym.envs.reach import ReachEnv
from vlac_gym.rollout import AsyncRollout, EpisodeStart
from vlac_gym.rollout.starts import draw_states, success_rates
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper


def reach(observations, rows):
    """Goes to the red ball, which takes 4 to 10 steps, from states other than 1 and 2."""
    way = (np.array([0.15, 0.1, 0.1]) - observations["state"][:, :3]) / 0.05
    action = np.concatenate([np.clip(way, -1, 1), np.zeros((len(way), 4))], axis=1)
    action[[row.start.options["init_state_id"] in (1, 2) for row in rows]] = 0.0
    return np.repeat(action[:, None], 2, axis=1).astype(np.float32)


def test_success_rates_are_the_simulators_by_task():
    fns = [partial(ReachEnv, 0, image_size=16, max_episode_steps=12)] * 4
    env = RolloutVectorEnv(fns, mode="sync", autoreset_mode="Disabled")
    env = ActionChunk(VLACRewardWrapper(env, "oracle", max_episode_steps=12), 2)
    starts = [
        EpisodeStart(0, {"init_state_id": n}, envs) for n, envs in enumerate(((0, 1), (0, 1), (2,), (2,)))
    ]
    rates = success_rates(
        AsyncRollout(env, reach, starts=starts, mode="eval").episodes(), ["a", "a", "b", "c"]
    )
    assert rates == {
        "eval/success_rate": 0.5,
        "eval/episodes": 4.0,
        "eval/lost_episodes": 0.0,
        "eval/success_rate_a": 0.5,
        "eval/success_rate_b": 0.5,
        "eval/success_rate_c": None,
    }


def test_draws_repeat_no_state_until_all_were_drawn():
    assert sorted(draw_states([5, 6, 7], 3, np.random.default_rng(0))) == [5, 6, 7]
    drawn = draw_states([0, 1], 5, np.random.default_rng(0))
    assert [sorted(drawn[:2]), sorted(drawn[2:4]), len(drawn)] == [[0, 1], [0, 1], 5]
    assert drawn == draw_states([0, 1], 5, np.random.default_rng(0))
    assert len({tuple(draw_states(range(9), 9, np.random.default_rng(seed))) for seed in range(3)}) == 3
