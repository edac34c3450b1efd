"""A critic that does not know what it is about to judge is refused at reset, for one env and for many."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError, CriticConnectionError
from vlac_gym.rule.calibration import Calibration
from vlac_gym.types import CriticInfo, CriticKnowledge
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers import VLACRewardWrapper
from vlac_gym.wrappers.vector import VLACRewardWrapper as VectorWrapper

TASK = "put the bowl on the plate"
KNOWS = CriticKnowledge(
    tasks=(TASK,),
    task_suites=("libero_goal",),
    views=("agentview",),
    inputs=(),
    renderers=("crayon 1",),
)
OTHERS = {
    "task": (
        replace(KNOWS, tasks=("open the drawer",)),
        "does not know the task 'put the bowl on the plate'",
    ),
    "suite": (replace(KNOWS, task_suites=("libero_10",)), "a task of the suite 'libero_goal'"),
    "view": (replace(KNOWS, views=("wrist",)), "the view 'agentview'; it was trained on 'wrist'"),
}


class NarrowCritic(ScriptedCritic):
    def __init__(self, knows: CriticKnowledge = KNOWS, inputs: tuple[str, ...] = ()) -> None:
        super().__init__([0.1] * 100, values=[[0.0, 0.5]] * 100)
        self.info = CriticInfo("narrow", model="paper", knows=knows, inputs=inputs)

    def describe(self) -> CriticInfo:
        return self.info


class LateCritic(NarrowCritic):
    """A remote critic whose server does not answer at first."""

    def __init__(self, failures: int) -> None:
        super().__init__(OTHERS["task"][0])
        self.failures = failures

    def identify(self, *, retry: bool = True) -> CriticInfo:
        if self.failures:
            self.failures -= 1
            raise CriticConnectionError("nobody there")
        return self.describe()


class SuiteEnv(ScriptedEnv):
    metadata = {**ScriptedEnv.metadata, "renderer": "crayon 1"}

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return observation, info | {"task_suite": "libero_goal"}


class RedrawnEnv(SuiteEnv):
    metadata = {**ScriptedEnv.metadata, "renderer": "crayon 2"}


def single(critic: Any, env: Callable[[], gym.Env] = SuiteEnv, **options: Any) -> Any:
    return VLACRewardWrapper(env(), critic, **options)


def vector(critic: Any, env: Callable[[], gym.Env] = SuiteEnv, **options: Any) -> Any:
    return VectorWrapper(RolloutVectorEnv([env, env], mode="sync"), critic, **options)


both = pytest.mark.parametrize("wrap", [single, vector])


@both
def test_a_critic_that_knows_the_episode_judges_it(wrap, caplog):
    env = wrap(NarrowCritic())
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert caplog.records == []


@both
@pytest.mark.parametrize("name", OTHERS)
def test_one_that_does_not_is_refused_at_reset(wrap, name):
    knows, message = OTHERS[name]
    critic = NarrowCritic(knows)
    with pytest.raises(ConfigError, match=rf"critic 'narrow' \(paper\) can't judge this: it .*{message}"):
        wrap(critic).reset(seed=0)
    assert critic.calls == []


@both
@pytest.mark.parametrize("name", OTHERS)
def test_or_is_warned_of_once_where_the_user_says_so(wrap, name, caplog):
    knows, message = OTHERS[name]
    env = wrap(NarrowCritic(knows), on_critic_mismatch="warn")
    for _ in range(3):
        env.reset(seed=0)
        env.step(env.action_space.sample())
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert message in caplog.text


@both
def test_references_that_the_critic_was_not_trained_with_are_refused(wrap):
    references = [np.zeros((8, 8, 3), np.uint8)] * 2
    with pytest.raises(ConfigError, match="does not know the input 'references'"):
        wrap(NarrowCritic(), references=references).reset(seed=0)


@both
def test_a_goal_image_of_the_critics_own_is_refused_likewise(wrap):
    with pytest.raises(ConfigError, match="does not know the input 'goal_image'"):
        wrap(NarrowCritic(inputs=("goal_image",))).reset(seed=0)


@both
def test_the_task_that_the_user_gives_is_the_one_that_counts(wrap):
    with pytest.raises(ConfigError, match="does not know the task 'Put the bowl'"):
        wrap(NarrowCritic(), task="Put the bowl").reset(seed=0)


@both
def test_another_renderer_only_warns(wrap, caplog):
    wrap(NarrowCritic(), RedrawnEnv).reset(seed=0)
    assert "does not know pictures of 'crayon 2'; it was trained on 'crayon 1'" in caplog.text


@both
def test_in_eval_mode_the_critic_is_not_asked_what_it_knows(wrap):
    critic = LateCritic(failures=1)
    wrap(critic, mode="eval").reset(seed=0)
    assert critic.failures == 1


@both
def test_a_frame_of_no_named_camera_is_not_compared(wrap):
    critic = NarrowCritic(replace(KNOWS, views=("wrist",)))
    wrap(critic, frame=lambda observation, info: observation["agentview_image"]).reset(seed=0)


@both
def test_a_lost_server_is_an_error_at_reset_or_the_check_waits_for_it(wrap):
    with pytest.raises(CriticConnectionError):
        wrap(LateCritic(failures=1)).reset(seed=0)
    env = wrap(LateCritic(failures=2), on_critic_error="truncate")
    while env.get_wrapper_attr("critic").failures if wrap is single else env.critic.failures:
        env.reset(seed=0)  # begins unchecked
    with pytest.raises(ConfigError, match="does not know the task"):
        env.reset(seed=0)


@both
@pytest.mark.parametrize("name", ["narrow", "another"])
def test_a_calibration_holds_for_the_critic_it_was_measured_on(wrap, name, tmp_path, caplog):
    measured = Calibration(
        critic=name, critic_fingerprint=CriticInfo(name, model="paper").fingerprint, done_threshold=0.5
    )
    path = tmp_path / "card.json"
    path.write_text(json.dumps(measured.as_json()))
    env = wrap(NarrowCritic(), calibration=str(path))
    if name == "narrow":
        env.reset(seed=0)
        return
    with pytest.raises(ConfigError, match=r"calibration was measured on another critic \('another', fingerp"):
        env.reset(seed=0)
    wrap(NarrowCritic(), calibration=str(path), on_critic_mismatch="warn").reset(seed=0)
    assert "calibration was measured on another critic" in caplog.text


@both
def test_what_to_do_about_a_mismatch_is_checked_at_construction(wrap):
    with pytest.raises(ConfigError, match="Unknown on_critic_mismatch 'ignore'"):
        wrap(NarrowCritic(), on_critic_mismatch="ignore")


def test_the_next_task_of_a_vector_env_is_checked_too():
    class ChangingEnv(SuiteEnv):
        def reset(self, **kwargs: Any) -> Any:
            observation, info = super().reset(**kwargs)
            return observation, info | {"task": TASK if self.num_resets == 1 else "fly"}

    critic = ScriptedCritic([0.95] * 10)
    critic.describe = NarrowCritic().describe  # type: ignore[method-assign]
    env = VectorWrapper(RolloutVectorEnv([ChangingEnv], mode="sync"), critic)
    env.reset(seed=0)
    env.step(env.action_space.sample())  # ends the episode
    with pytest.raises(ConfigError, match="does not know the task 'fly'"):
        env.step(env.action_space.sample())  # resets the env
