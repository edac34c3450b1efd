"""Episodes are told apart in every autoreset mode, and lost ones are not counted."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from vector_envs import FaultyEnv, ShadedEnv

from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.metrics.episodes import EpisodeMetrics
from vlac_gym.rollout import EpisodeLog, FinishedEpisode
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper


def play(env: Any, steps: int, *length: int) -> tuple[EpisodeLog, list[FinishedEpisode]]:
    log = EpisodeLog(env)
    env.reset(seed=0, options={"task_id": [40, 41]})
    ended = []
    for _ in range(steps):
        ended += log.add(*env.step(np.zeros((2, *length, 7)))[1:])
    return log, ended


@pytest.mark.parametrize(
    ("autoreset", "expected"),
    [
        ("SameStep", [(0, 2), (1, 3), (0, 2), (0, 2), (1, 3)]),
        ("NextStep", [(0, 2), (1, 3), (0, 2)]),
        ("Disabled", [(0, 2), (1, 3)]),
    ],
)
def test_every_episode_is_reported_once_with_its_length(autoreset, expected):
    fns = [partial(ShadedEnv, max_episode_steps=n, success_steps=[3]) for n in (2, 3)]
    _, ended = play(RolloutVectorEnv(fns, mode="sync", autoreset_mode=autoreset), 6)
    assert [(episode.env_index, episode.num_steps) for episode in ended] == expected
    assert [episode.episode_return for episode in ended] == [float(i) for i, _ in expected]
    assert [episode.sim_success for episode in ended] == [bool(i) for i, _ in expected]
    first = {episode.env_index: episode.info["options"]["task_id"] for episode in reversed(ended[:2])}
    assert first == {0: 40, 1: 41}


def test_masked_reset_begins_an_episode():
    fns = [partial(ShadedEnv, max_episode_steps=n) for n in (2, 9)]
    env = RolloutVectorEnv(fns, mode="sync", autoreset_mode="Disabled")
    log, ended = play(env, 3)
    assert [(episode.env_index, episode.num_steps) for episode in ended] == [(0, 2)]
    mask = np.array([True, False])
    env.reset(options={"reset_mask": mask})
    log.begin(mask)
    steps = [log.add(*env.step(np.zeros((2, 7)))[1:]) for _ in range(2)]
    assert [(episode.env_index, episode.num_steps) for episode in steps[1]] == [(0, 2)]
    assert steps[0] == []


@pytest.mark.parametrize("autoreset", ["SameStep", "NextStep", "Disabled"])
def test_lost_episodes_are_marked_and_not_counted(autoreset):
    fns = [partial(FaultyEnv, "physics", at_step=2), partial(ShadedEnv, max_episode_steps=2)]
    _, ended = play(RolloutVectorEnv(fns, mode="sync", autoreset_mode=autoreset), 2)
    assert [(episode.env_index, episode.is_lost) for episode in ended] == [(0, True), (1, False)]
    metrics = EpisodeMetrics()
    for episode in ended:
        episode.add_to(metrics)
    assert metrics.compute()["env/episode_length"] == 2.0
    assert metrics.compute()["env/success_rate"] == 0.0


def test_chunks_count_their_executed_steps_and_critics_verdicts():
    critic = ScriptedCritic(success_probs=[0.95, 0.125, 0.25, float("nan")], values=[[0.0, 0.5]])
    fns = [
        partial(ShadedEnv, max_episode_steps=9, success_steps=[3]),
        partial(ShadedEnv, max_episode_steps=5),
    ]
    env = RolloutVectorEnv(fns, mode="sync", autoreset_mode="Disabled")
    env = VLACRewardWrapper(env, critic, done_interval=4, value_stride=100, on_critic_error="truncate")
    _, ended = play(ActionChunk(env, 4), 2, 4)
    assert [(episode.num_steps, episode.episode_return) for episode in ended] == [(4, 1.0), (5, 0.5)]
    assert [episode.critic_said_done for episode in ended] == [True, False]
    metrics = EpisodeMetrics()
    for episode in ended:
        episode.add_to(metrics)
    result = metrics.compute()
    assert result["env/success_rate"] == 0.5
    assert result["rollout/reward_mean"] == 0.75
    assert result["critic/success_prob"] == pytest.approx((0.95 + 0.25) / 2)
    assert result["critic/false_negative_rate"] == 0.0
    assert result["critic/false_positive_rate"] == 0.0
    assert result["critic/latency_ms"] > 0.0


def test_failed_critic_gives_no_verdict_and_is_counted():
    fns = [partial(ShadedEnv, success_steps=[1])] * 2
    critic = ScriptedCritic(success_probs=[float("nan"), 0.95])
    env = RolloutVectorEnv(fns, mode="sync", autoreset_mode="SameStep")
    _, ended = play(VLACRewardWrapper(env, critic, on_critic_error="truncate"), 1)
    assert [episode.critic_said_done for episode in ended] == [None, True]
    metrics = EpisodeMetrics()
    for episode in ended:
        episode.add_to(metrics)
    assert metrics.compute()["critic/failures"] == 1.0
    assert metrics.compute()["critic/false_negative_rate"] == 0.0


class RoboticsEnv(ShadedEnv):
    """Says `is_success`, as Gymnasium-Robotics does, or nothing at all."""

    def __init__(self, key: str | None = "is_success", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.key = key

    def current_info(self):
        return self._renamed(super().current_info())

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed, options=options)
        return observation, self._renamed(info)

    def _renamed(self, info):
        success = info.pop("success")
        return info | ({} if self.key is None else {self.key: success})


class LastingEnv(RoboticsEnv):
    """Succeeds without ending."""

    def step_unrendered(self, action):
        _, _, is_last = super().step_unrendered(action)
        return 0.0, False, is_last


@pytest.mark.parametrize("autoreset", ["SameStep", "NextStep", "Disabled"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_success_is_seen_whenever_and_by_whichever_name_and_unknown_is_not_failure(autoreset, mode):
    fns = [
        partial(LastingEnv, success_steps=[2], max_episode_steps=4),
        partial(LastingEnv, "success", success_steps=[2], max_episode_steps=4),
        partial(LastingEnv, max_episode_steps=4),
        partial(LastingEnv, None, success_steps=[2], max_episode_steps=4),
    ]
    env = RolloutVectorEnv(fns, mode="sync", autoreset_mode=autoreset)
    judged = VLACRewardWrapper(env, "scripted:0.1", mode=mode)
    log = EpisodeLog(judged)
    judged.reset(seed=0)
    ended = [episode for _ in range(4) for episode in log.add(*judged.step(np.zeros((4, 7)))[1:])]
    assert [episode.sim_success for episode in ended] == [True, True, False, None]
    metrics = EpisodeMetrics()
    for episode in ended:
        episode.add_to(metrics)
    assert metrics.compute()["env/success_rate"] == pytest.approx(2 / 3)
    rates = [metrics.compute()[f"critic/false_{kind}_rate"] for kind in ("negative", "positive")]
    assert rates == ([None, None] if mode == "eval" else [1.0, 0.0])


def test_an_episode_does_not_inherit_the_success_of_one_that_a_reset_cut_short():
    env = RolloutVectorEnv([partial(ReplayedSuccess)], mode="sync", autoreset_mode="SameStep")
    log = EpisodeLog(env)
    env.reset(seed=0)
    assert log.add(*env.step(np.zeros((1, 7)))[1:]) == []  # success is seen here
    env.reset(seed=0)
    log.begin()
    ended = [episode for _ in range(3) for episode in log.add(*env.step(np.zeros((1, 7)))[1:])]
    assert [episode.sim_success for episode in ended] == [False]


class ReplayedSuccess(LastingEnv):
    """Succeeds in its first episode only, at step 1 of 3."""

    def __init__(self) -> None:
        super().__init__(success_steps=[1], max_episode_steps=3)

    def current_info(self):
        return super().current_info() | {"is_success": self.num_resets == 1 and self._step == 1}
