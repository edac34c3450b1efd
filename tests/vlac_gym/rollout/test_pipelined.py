"""Overlapping groups do what the serial loop does, only sooner."""

import itertools
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from vector_envs import FaultyEnv, LookingCritic, ShadedEnv, digest, per_env

from vlac_gym.curriculum import CurriculumManager
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError, CriticConnectionError, SimulatorError
from vlac_gym.rollout import PipelinedRollout, RolloutStep
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers.vector import ActionChunk, CurriculumWrapper, VLACRewardWrapper


class RandomPolicy:
    """Draws from one generator for all groups, so that only the serial order gives the serial actions."""

    def __init__(self, length: int | None = None, delay_s: float = 0.0) -> None:
        self.rng = np.random.default_rng(0)
        self.length = length
        self.delay_s = delay_s
        self.calls: list[int] = []

    def __call__(self, observations, infos, group):
        self.calls.append(group)
        time.sleep(self.delay_s)
        count = len(observations["state"])
        return self.rng.uniform(-1, 1, (count, 7) if self.length is None else (count, self.length, 7))


class DelayedCritic(LookingCritic):
    """A critic that takes its time, and notices when two threads use it at once."""

    def __init__(self, delay_s: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.delay_s = delay_s
        self.users = 0
        self.most_users = 0

    def success_prob(self, frames, tasks):
        self.users += 1
        self.most_users = max(self.most_users, self.users)
        time.sleep(self.delay_s)
        self.users -= 1
        return super().success_prob(frames, tasks)


class TimedEnv(ShadedEnv):
    """Takes `step_s` to step, and notes in its info the action it got."""

    def __init__(self, step_s: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step_s = step_s

    def step_unrendered(self, action):
        time.sleep(self.step_s)
        self.start["action"] = float(np.sum(action))
        return super().step_unrendered(action)


def groups(
    critic: Any, count: int = 2, length: int | None = None, step_s: float = 0.0, **options: Any
) -> list:
    built = []
    for g in range(count):
        fns = [
            partial(TimedEnv, step_s, shade=10 * g + i, max_episode_steps=3 + i + g, success_steps=[2])
            for i in range(2)
        ]
        env: Any = RolloutVectorEnv(fns, mode="sync", autoreset_mode="SameStep")
        env = VLACRewardWrapper(env, critic, first_env_index=2 * g, **options)
        built.append(env if length is None else ActionChunk(env, length))
    return built


def trace(steps: list[RolloutStep]) -> list[tuple]:
    return [
        (
            step.step,
            step.group,
            digest(step.observations),
            digest(step.next_observations),
            step.actions.tobytes(),
            step.rewards.tolist(),
            step.terminations.tolist(),
            step.truncations.tolist(),
            [
                {key: value for key, value in info.items() if key != "final_obs"}
                for info in per_env(step.infos, len(step.rewards))
            ],
        )
        for step in steps
    ]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("length", [None, 4])
def test_overlap_returns_exactly_what_the_serial_loop_does(count, length):
    def play(overlap: bool) -> tuple:
        policy = RandomPolicy(length, delay_s=0.001)
        rollout = PipelinedRollout(
            groups(DelayedCritic(0.001, done_share=0.2), count, length, value_stride=2),
            policy,
            overlap=overlap,
        )
        first = trace(list(rollout.run(num_steps=8, seed=3)))
        more = trace(list(rollout.run(num_steps=3, resume=True)))
        return first, more, policy.calls

    assert play(overlap=True) == play(overlap=False)


def test_overlap_is_measured():
    def seconds(overlap: bool) -> float:
        rollout = PipelinedRollout(
            groups(DelayedCritic(0.03, done_share=0.0), step_s=0.025, value_stride=100),
            RandomPolicy(delay_s=0.05),
            overlap=overlap,
        )
        begin = time.perf_counter()
        assert len(list(rollout.run(num_steps=6, seed=0))) == 12
        return time.perf_counter() - begin

    # Per step and group 0.05 s policy, 0.05 s envs, 0.03 s critic: 0.26 s for both in turn, 0.13 s at once.
    assert seconds(overlap=False) / seconds(overlap=True) > 1.4


def test_critic_and_policy_have_one_user_at_a_time():
    critic = DelayedCritic(0.005)
    rollout = PipelinedRollout(groups(critic, count=3), RandomPolicy())
    list(rollout.run(num_steps=10, seed=0))
    assert critic.most_users == 1


def num_threads() -> int:
    return sum(thread.name.startswith("vlac-gym-group") for thread in threading.enumerate())


@pytest.mark.parametrize("overlap", [True, False])
def test_failure_of_one_group_is_raised_where_the_serial_loop_would(overlap):
    fine = [RolloutVectorEnv([ShadedEnv], mode="sync") for _ in range(2)]
    broken = RolloutVectorEnv([partial(FaultyEnv, "bug", at_step=3)], mode="sync")
    rollout = PipelinedRollout([fine[0], broken, fine[1]], RandomPolicy(), overlap=overlap)
    steps = rollout.run(num_steps=5, seed=0)
    seen = [(step.step, step.group) for step in itertools.islice(steps, 7)]
    assert seen == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    with pytest.raises(SimulatorError, match="a bug"):
        next(steps)
    assert num_threads() == 0


def test_failing_policy_or_critic_ends_every_thread():
    def policy(observations, infos, group):
        if group == 1:
            raise ValueError("no checkpoint")
        return np.zeros((2, 7))

    with pytest.raises(ValueError, match="no checkpoint"):
        list(PipelinedRollout(groups(LookingCritic()), policy).run(num_steps=3))
    assert num_threads() == 0

    class Gone(LookingCritic):
        def success_prob(self, frames, tasks):
            raise CriticConnectionError("gone")

    with pytest.raises(CriticConnectionError, match="gone"):
        list(PipelinedRollout(groups(Gone()), RandomPolicy()).run(num_steps=3))
    assert num_threads() == 0


def test_reader_that_stops_early_ends_every_thread_and_can_start_anew():
    rollout = PipelinedRollout(groups(LookingCritic()), RandomPolicy())
    for step in rollout.run(num_steps=1000, seed=0):
        if step.step == 2:
            break
    del step
    with pytest.raises(ConfigError, match="no complete run to resume"):
        rollout.run(num_steps=1, resume=True)
    assert len(list(rollout.run(num_steps=2, seed=0))) == 4
    assert num_threads() == 0


def test_slow_reader_holds_the_groups_back():
    policy = RandomPolicy()
    steps = PipelinedRollout(groups(LookingCritic()), policy).run(num_steps=50, seed=0)
    next(steps)
    time.sleep(0.2)
    # Read 1 of group 0; each lane holds 1, each thread one more in its hands.
    assert len(policy.calls) <= 1 + 2 * 2
    steps.close()


def test_seeds_are_those_of_one_large_vector_env():
    def draws(infos: list) -> list[int]:
        return [int(draw) for info in infos for draw in info["draw"]]

    large = RolloutVectorEnv([ShadedEnv] * 4, mode="sync").reset(seed=9)[1]
    small = [RolloutVectorEnv([ShadedEnv] * 2, mode="sync") for _ in range(2)]
    steps = list(PipelinedRollout(small, RandomPolicy()).run(num_steps=1, seed=9))
    assert draws([step.infos for step in steps]) == draws([large])


def test_groups_that_cannot_overlap_are_refused():
    env = RolloutVectorEnv([ScriptedEnv], mode="sync")
    views = RolloutVectorEnv([ScriptedEnv], mode="sync", copy=False)
    for bad in ([], [env, env], [env, views]):
        with pytest.raises(ConfigError, match="Expected"):
            PipelinedRollout(bad, RandomPolicy())
    with pytest.raises(ConfigError, match="options for 1 groups, got 2"):
        PipelinedRollout([env], RandomPolicy()).run(num_steps=1, options=[None, None])


def test_curricula_of_ones_own_are_told_apart_even_without_a_hash():
    @dataclass
    class MyCurriculum(CurriculumManager):
        name: str

        def __post_init__(self):
            CurriculumManager.__init__(self, [0], 3)

    def rollout(*curricula: Any) -> PipelinedRollout:
        groups: list[Any] = [
            CurriculumWrapper(
                VLACRewardWrapper(RolloutVectorEnv([ScriptedEnv], mode="sync"), LookingCritic()), curriculum
            )
            for curriculum in curricula
        ]
        return PipelinedRollout(groups, RandomPolicy())

    mine = MyCurriculum("one")
    rollout(mine, MyCurriculum("one"))
    with pytest.raises(ConfigError, match="got the same MyCurriculum in groups 0 and 1"):
        rollout(mine, mine)
