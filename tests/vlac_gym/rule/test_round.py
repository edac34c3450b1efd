"""One round for many episodes: equal questions share a call, and an error stays with those it concerns."""

import numpy as np
import pytest

from vlac_gym.critic.scripted import CriticCall, ScriptedCritic
from vlac_gym.errors import CriticConnectionError, CriticResponseError
from vlac_gym.rule.episode import RuleEpisode
from vlac_gym.rule.reward import TrainingRule, training_rule
from vlac_gym.rule.round import OpenStep, ask_round

FRAME = np.zeros((2, 2, 3), np.uint8)


def opened(rule: TrainingRule, *, at_limit: bool = False, task: str = "task") -> OpenStep:
    episode = RuleEpisode(rule, task, FRAME, max_buffer_bytes=10**6)
    return OpenStep(episode.step("step_limit" if at_limit else None, lambda: FRAME), task)


def outcome(step: OpenStep) -> tuple[float, bool, bool, str | None]:
    verdict = step.verdict
    return verdict.reward, verdict.terminated, verdict.truncated, verdict.stopped_by


def test_equal_questions_of_different_rules_share_one_call():
    steps = [
        opened(training_rule("vlac"), at_limit=True),
        opened(training_rule("dense")),
        opened(training_rule("evolve", done_interval=1)),
        opened(training_rule("vlac", done_interval=2)),  # not checked
        opened(training_rule("vlac")),
        opened(training_rule("vlac"), at_limit=True),
    ]
    critic = ScriptedCritic([0.1, 0.2, 0.95, 0.3], [0.5, 0.25], [[0.0, 0.5], [0.0, 0.125]])
    ask_round(critic, steps)
    assert critic.calls == [
        CriticCall("success_prob", 4),
        CriticCall("progress", 2),
        CriticCall("value", 2),
        CriticCall("value", 2),
    ]
    assert [outcome(step) for step in steps] == [
        (0.5, False, True, "step_limit"),
        (0.5, False, False, None),
        (0.0, False, False, None),
        (0.0, False, False, None),
        (1.0, True, False, "success_prob"),
        (0.125, False, True, "step_limit"),
    ]
    assert [step.latency_ms is None for step in steps] == [False, False, False, True, False, False]


def test_nothing_is_asked_where_nothing_is_open():
    critic = ScriptedCritic()
    ask_round(critic, [opened(training_rule("vlac", done_interval=2))])
    ask_round(critic, [])
    assert critic.calls == []


def test_a_bad_answer_concerns_its_episode_alone():
    steps = [opened(training_rule("vlac"), at_limit=True) for _ in range(3)]
    critic = ScriptedCritic([0.1, float("nan"), 0.1], values=[[0.0, 0.5], [0.0, 1.5]])
    ask_round(critic, steps)
    assert [outcome(step)[3] for step in steps] == ["step_limit", "critic_error", "critic_error"]
    assert [step.error is None for step in steps] == [True, False, False]
    with pytest.raises(
        CriticResponseError, match=r"success_prob in \[0, 1\] from the critic, got nan at index 1 of 3"
    ):
        raise steps[1].error


def test_a_failed_call_concerns_all_that_it_asked_about_and_nobody_else():
    lost = CriticConnectionError("gone")
    steps = [opened(training_rule("vlac")), opened(training_rule("vlac"), at_limit=True)]
    ask_round(ScriptedCritic([0.1, 0.1], values=[lost]), steps)
    assert [step.error for step in steps] == [None, lost]
    steps = [opened(training_rule("vlac")), opened(training_rule("evolve", done_interval=1))]
    ask_round(ScriptedCritic([lost], progresses=[0.5]), steps)
    assert [step.error for step in steps] == [lost, None]
