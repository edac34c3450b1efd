"""RLinf's reward worker as a critic, on a Ray that is a stub: what is asked, and what each failure becomes."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from verl_env_adapter.rlinf_reward_worker import RewardWorkerCritic
from vlac_gym.errors import (
    ConfigError,
    CriticOverloadedError,
    CriticResponseError,
    CriticServerError,
    CriticTimeoutError,
)

FRAME = np.zeros((4, 4, 3), np.uint8)


class RayTaskError(Exception):
    def __init__(self, cause):
        self.cause = cause


class GetTimeoutError(Exception):
    pass


class RayActorError(Exception):
    pass


@pytest.fixture
def make_critic(monkeypatch):
    ray = ModuleType("ray")
    ray.exceptions = SimpleNamespace(
        RayTaskError=RayTaskError, GetTimeoutError=GetTimeoutError, RayActorError=RayActorError
    )
    asked = []

    def get(question, timeout):
        asked.append((question, timeout))
        if isinstance(ray.reply, Exception):
            raise ray.reply
        return ray.reply

    ray.get = get
    monkeypatch.setitem(sys.modules, "ray", ray)
    worker = SimpleNamespace(compute_image_rewards=SimpleNamespace(remote=lambda question: question))

    def make(reply):
        ray.reply = reply
        return RewardWorkerCritic("oracle", worker=worker, timeout_s=9.0), asked

    return make


def test_one_call_asks_about_all_frames(make_critic):
    critic, asked = make_critic(np.array([[0.25], [0.75]], np.float32))  # RLinf makes (N, 1) of (N,)
    assert critic.success_prob([FRAME, FRAME], ["a", "b"]).tolist() == [0.25, 0.75]
    [(question, timeout_s)] = asked
    assert question["method"] == "success_prob"
    assert question["arguments"]["tasks"] == ["a", "b"]
    assert timeout_s == 9.0


def test_value_and_progress_reach_the_worker_by_name(make_critic):
    critic, asked = make_critic(np.array([[0.5]], np.float32))
    assert critic.value([FRAME], "a").tolist() == [0.5]
    assert critic.progress([FRAME], [FRAME], ["a"]).tolist() == [0.5]
    assert [question["method"] for question, _ in asked] == ["value", "progress"]


def test_no_frames_are_no_question(make_critic):
    critic, asked = make_critic(None)
    assert critic.success_prob([], []).shape == (0,)
    assert asked == []


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (GetTimeoutError(), CriticTimeoutError, "No reply .* in 9 s"),
        (RayActorError("gone"), CriticServerError, "died: gone"),
        (RayTaskError(RuntimeError("no memory")), CriticServerError, "failed: no memory"),
        (RayTaskError(CriticOverloadedError("later")), CriticOverloadedError, "later"),
        (np.zeros((3, 1), np.float32), CriticResponseError, "Expected 1 numbers .* got 3"),
    ],
)
def test_each_failure_is_a_critic_error(make_critic, reply, error, message):
    critic, _ = make_critic(reply)
    with pytest.raises(error, match=message):
        critic.success_prob([FRAME], ["a"])


def test_spec_names_the_critic_and_its_gpu():
    critic = RewardWorkerCritic.from_spec("gpu=3,transformers:/ckpt,x=1")
    assert (critic._gpu, critic.describe().model) == (3, "transformers:/ckpt,x=1")
    assert RewardWorkerCritic.from_spec("oracle")._gpu is None
    for text in ("", "gpu=3,", "gpu=x,oracle"):
        with pytest.raises(ConfigError, match="rlinf_reward_worker:CRITIC"):
            RewardWorkerCritic.from_spec(text)
