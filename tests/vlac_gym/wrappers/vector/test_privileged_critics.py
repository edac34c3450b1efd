"""Critics that read the simulator, in envs that look alike and inside other critics."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from vector_envs import LookingCritic, ShadedEnv
from wrapped_vector_envs import AUTORESETS, actions, build

from vlac_gym.critic import make_critic
from vlac_gym.critic.base import frame_digest
from vlac_gym.critic.oracle import OracleCritic
from vlac_gym.critic.signals import signals_of
from vlac_gym.errors import ConfigError
from vlac_gym.types import CriticInfo
from vlac_gym.wrappers import VLACRewardWrapper as SingleWrapper


class Blind(ShadedEnv):
    """All envs and steps look the same."""

    def _frame(self, step):
        return np.zeros((8, 8, 3), np.uint8)


def test_privileged_critic_is_told_which_env_and_episode_a_frame_is_of():
    told = []

    class Told(OracleCritic):
        def success_prob(self, frames, tasks):
            signals = [signals_of(frame, "told") for frame in frames]
            told.append([(s.episode.env_index, s.episode.episode, s.number) for s in signals])
            return super().success_prob(frames, tasks)

    env = build([partial(Blind, success_steps=[1 + i]) for i in range(2)], Told(), first_env_index=4)
    env.reset(seed=0)
    assert env.step(actions(2))[1].tolist() == [1.0, 0.0]
    assert env.step(actions(2))[1].tolist() == [0.0, 1.0]
    env.step(actions(2))
    assert told == [[(4, 0, 1), (5, 0, 1)], [(5, 0, 2)], [(4, 1, 1)]]


@pytest.mark.parametrize("autoreset", AUTORESETS)
@pytest.mark.parametrize("rule", [{}, {"min_value": 0.5}, {"preset": "dense"}, {"preset": "evolve"}])
@pytest.mark.parametrize("spec", ["oracle", "noisy_oracle:tpr=0.6,fpr=0.2,delay=1"])
def test_privileged_critic_answers_for_envs_that_look_alike_as_for_each_alone(autoreset, rule, spec):
    """What it says of an env depends neither on the other envs nor on how the frames look."""
    stories = [[0.0, 0.1, 0.5, 1.0], [0.5, 0.25, 0.75, 0.75, 1.0], [0.0, 0.0, 0.0, 0.5]]

    def env_fn(env_class, i):
        success_steps = [step for step, progress in enumerate(stories[i]) if progress == 1.0]
        options = {"success_steps": success_steps, "goal_progress": stories[i], "max_episode_steps": 6}
        return partial(env_class, shade=i, **options)

    def run(env_class, chosen, first_env_index):
        fns = [env_fn(env_class, i) for i in chosen]
        env = build(
            fns, make_critic(spec), autoreset, first_env_index=first_env_index, value_stride=2, **rule
        )
        env.reset(seed=0)
        return np.array([[*map(np.copy, env.step(actions(len(fns)))[1:4])] for _ in range(12)])

    together = run(Blind, range(3), 0)
    np.testing.assert_array_equal(together, run(ShadedEnv, range(3), 0))
    alone = np.concatenate([run(Blind, [i], i) for i in range(3)], axis=2)
    np.testing.assert_array_equal(together, alone)


class Listening:
    """A user's critic around another: the five methods, and nothing about privileges but its description."""

    def __init__(self, inner):
        self.inner, self.calls = inner, []

    def success_prob(self, frames, tasks):
        self.calls.append("success_prob")
        return self.inner.success_prob(frames, tasks)

    def progress(self, before, after, tasks, references=None):
        self.calls.append("progress")
        return self.inner.progress(before, after, tasks, references)

    def value(self, frames, task, references=None):
        self.calls.append("value")
        return self.inner.value(frames, task, references)

    def describe(self):
        return replace(self.inner.describe(), name="listening")

    def close(self):
        self.inner.close()


class Caching(Listening):
    """Asks about a frame once."""

    def __init__(self, inner):
        super().__init__(inner)
        self.answers = {}

    def success_prob(self, frames, tasks):
        keys = [frame_digest(frame) for frame in frames]
        for key, frame, task in zip(keys, frames, tasks):
            if key not in self.answers:
                self.answers[key] = super().success_prob([frame], [task])[0]
        return np.array([self.answers[key] for key in keys], np.float32)


@pytest.mark.parametrize("around", [Listening, Caching])
@pytest.mark.parametrize("rule", [{}, {"preset": "pbrs"}])
def test_a_critic_around_a_privileged_one_works(around, rule):
    def run(critic):
        fns = [partial(Blind, success_steps=[4 + 3 * i], max_episode_steps=6) for i in range(2)]
        env = build(fns, critic, "SameStep", **rule)
        env.reset(seed=0)
        vector = [[*map(np.copy, env.step(actions(2))[1:4])] for _ in range(20)]
        one = SingleWrapper(fns[0](), critic, **rule)
        one.reset(seed=0)
        single = [one.step(actions(1)[0])[1:4] for _ in range(4)]
        return vector, single

    spec = "noisy_oracle:fpr=0.1,tpr=0.7"
    wrapped = around(make_critic(spec))
    np.testing.assert_equal(run(wrapped), run(make_critic(spec)))
    assert "success_prob" in wrapped.calls


def test_a_critic_that_hides_what_it_wraps_is_told_what_to_do():
    class Hiding(Listening):
        def describe(self):
            return CriticInfo("hiding")

    env = build([ShadedEnv], Hiding(OracleCritic()), on_critic_error="truncate")
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"must say is_privileged=True in describe\(\)"):
        env.step(actions(1))


def test_only_a_privileged_critic_gets_frames_with_signals():
    class Looking(LookingCritic):
        def _note(self, method, frames):
            super()._note(method, frames)
            assert all(type(frame) is np.ndarray for frame in frames)

    env = build([partial(ShadedEnv, max_episode_steps=3)], Looking(0.0))
    env.reset(seed=0)
    for _ in range(5):
        env.step(actions(1))
