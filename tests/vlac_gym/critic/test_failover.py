"""Who is asked when a critic fails; every answer is scripted."""

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from vlac_gym.critic.failover import FailoverCritic
from vlac_gym.critic.failure_policy import CriticFailurePolicy
from vlac_gym.critic.scripted import ScriptedCritic
from vlac_gym.errors import (
    ConfigError,
    CriticConnectionError,
    CriticProtocolError,
    CriticResponseError,
    CriticServerError,
)
from vlac_gym.types import CriticInfo

FRAME = np.zeros((2, 2, 3), np.uint8)
GONE = CriticConnectionError("gone")


class NamedCritic(ScriptedCritic):
    """A scripted critic of a fingerprint of its own; `is_absent`: it does not say who it is."""

    def __init__(self, *probs: Any, fingerprint: str = "same") -> None:
        super().__init__(success_probs=probs)
        self._fingerprint = fingerprint
        self.is_absent = self.is_closed = False
        self.looks = 0

    def identify(self, *, retry: bool = True) -> CriticInfo:
        self.looks += 1
        if self.is_absent:
            raise CriticConnectionError("absent")
        return self.describe()

    def describe(self) -> CriticInfo:
        return CriticInfo("scripted", fingerprint=self._fingerprint)

    def close(self) -> None:
        self.is_closed = True


def ask(critic: FailoverCritic) -> float:
    return float(critic.success_prob([FRAME], ["t"])[0])


def answers(critic: FailoverCritic, count: int) -> list[float]:
    return [ask(critic) for _ in range(count)]


def test_a_lost_question_is_asked_again_and_a_server_that_failed_is_not():
    critic = FailoverCritic(NamedCritic(0.5, GONE, 0.25), CriticFailurePolicy(retries=1))
    assert answers(critic, 2) == [0.5, 0.25]
    assert (critic.retries, critic.failovers) == (1, 0)
    failing = NamedCritic(CriticServerError("out of memory"), 0.5)
    with pytest.raises(CriticServerError, match="out of memory"):
        ask(FailoverCritic(failing, CriticFailurePolicy(retries=1)))
    assert len(failing.calls) == 1


def test_a_fallback_takes_over_and_is_kept_until_the_first_is_looked_for():
    first, second = NamedCritic(0.5, CriticServerError("full"), 0.75), NamedCritic(0.25, 0.125)
    now = [0.0]
    policy = CriticFailurePolicy(fallbacks=[second], failback_s=10.0)
    critic = FailoverCritic(first, policy, clock=lambda: now[0])
    assert answers(critic, 3) == [0.5, 0.25, 0.125]
    assert (critic.failovers, critic.failbacks, first.looks) == (1, 0, 0)
    now[0], first.is_absent = 10.0, True
    second._scripts["success_prob"] += [0.375] * 3
    assert ask(critic) == 0.375  # answered while the first is looked for
    critic._look.join()
    assert (first.looks, ask(critic)) == (1, 0.375)
    now[0], first.is_absent = 20.0, False
    assert ask(critic) == 0.375
    critic._look.join()
    assert (ask(critic), critic.failovers, critic.failbacks) == (0.75, 1, 1)


def test_a_fallback_that_fails_gives_back_to_the_first_and_is_compared_once():
    first, second = NamedCritic(0.5, GONE, 0.75, GONE), NamedCritic(0.25, GONE, 0.125)
    critic = FailoverCritic(first, CriticFailurePolicy(fallbacks=[second]))
    assert answers(critic, 4) == [0.5, 0.25, 0.75, 0.125]
    assert (critic.failovers, second.looks) == (3, 1)


def test_where_nobody_answers_all_reasons_are_told():
    first = NamedCritic(0.5, CriticConnectionError("one is gone"))
    second = NamedCritic(CriticServerError("two is full"))
    critic = FailoverCritic(first, CriticFailurePolicy(fallbacks=[second]))
    ask(critic)
    with pytest.raises(CriticConnectionError, match="one is gone; then two is full"):
        ask(critic)


def test_a_reply_without_a_number_is_not_asked_of_an_equal_critic():
    second = NamedCritic(0.25)
    first = NamedCritic(0.5, CriticResponseError("no number"))
    critic = FailoverCritic(first, CriticFailurePolicy(fallbacks=[second], retries=1))
    ask(critic)
    with pytest.raises(CriticResponseError, match="no number"):
        ask(critic)
    assert second.calls == []


def test_another_critic_is_refused_at_the_start_and_when_it_is_needed():
    first, other = NamedCritic(0.5, GONE), NamedCritic(0.25, fingerprint="other")
    critic = FailoverCritic(first, CriticFailurePolicy(fallbacks=[other]))
    with pytest.raises(
        ConfigError, match=r"of fingerprint same, got other \(scripted, none\): rewards of two"
    ):
        critic.identify()
    ask(critic)
    with pytest.raises(CriticConnectionError, match="gone; then Expected fallback"):
        ask(critic)
    assert other.calls == []


def test_another_critic_answers_if_that_is_allowed(caplog):
    first, other = NamedCritic(0.5, GONE), NamedCritic(0.25, fingerprint="other")
    critic = FailoverCritic(first, CriticFailurePolicy(fallbacks=[other], allow_other_critic=True))
    critic.identify()
    assert "rewards of two critics would mix" in caplog.text
    assert answers(critic, 2) == [0.5, 0.25]


def test_a_fallback_is_not_asked_for_a_critic_that_never_said_who_it_is():
    first, second = NamedCritic(GONE), NamedCritic(0.25)
    first.is_absent = True
    critic = FailoverCritic(first, CriticFailurePolicy(fallbacks=[second]))
    with pytest.raises(
        CriticConnectionError, match=r"absent; then Fallback .* was not asked: the critic itself"
    ):
        critic.identify()
    with pytest.raises(CriticConnectionError, match="gone; then Fallback"):
        ask(critic)
    assert second.calls == []


def test_a_fallback_that_can_not_be_reached_at_the_start_is_compared_when_it_is_needed(caplog):
    first, second = NamedCritic(0.5, GONE, GONE), NamedCritic(0.25, 0.125, fingerprint="other")
    second.is_absent = True
    critic = FailoverCritic(first, CriticFailurePolicy(fallbacks=[second]))
    critic.identify()
    assert "is the same critic is not known yet: absent" in caplog.text
    ask(critic)
    second.is_absent = False
    with pytest.raises(CriticConnectionError, match="got other"):
        ask(critic)
    second._fingerprint = "same"
    assert ask(critic) == 0.25


def test_a_first_critic_that_became_another_does_not_come_back():
    """`RemoteCritic` raises this where a server was started again with another checkpoint."""
    first, second = NamedCritic(0.5, GONE), NamedCritic(*[0.25] * 3)
    critic = FailoverCritic(first, CriticFailurePolicy(fallbacks=[second], failback_s=1e-9))
    assert answers(critic, 2) == [0.5, 0.25]

    def identify(*, retry: bool = True) -> CriticInfo:
        raise CriticProtocolError("rewards of two critics would mix")

    first.identify = identify
    ask(critic)
    critic._look.join()
    assert (ask(critic), critic.failbacks) == (0.25, 0)


def test_a_look_that_hangs_holds_up_no_question():
    first, second = NamedCritic(0.5, GONE), NamedCritic(*[0.25] * 4)
    first.identify = lambda *, retry=True: time.sleep(0.5) or first.describe()
    critic = FailoverCritic(first, CriticFailurePolicy(fallbacks=[second], failback_s=1e-9))
    ask(critic)
    start = time.monotonic()
    assert answers(critic, 4) == [0.25] * 4
    assert time.monotonic() - start < 0.25
    critic.close()


def test_what_a_look_found_before_the_first_failed_again_brings_nobody_back():
    first, second = NamedCritic(0.5, GONE, 0.75, GONE), NamedCritic(0.25, GONE, 0.125, 0.0625)
    leave, own = threading.Event(), first.identify
    first.identify = lambda *, retry=True: leave.wait(30.0) and own(retry=retry)
    now = [0.0]
    policy = CriticFailurePolicy(fallbacks=[second], failback_s=10.0)
    critic = FailoverCritic(first, policy, clock=lambda: now[0])
    assert answers(critic, 2) == [0.5, 0.25]
    now[0] = 10.0
    before = set(threading.enumerate())
    assert ask(critic) == 0.75  # the look has begun, and the fallback failed
    (look,) = set(threading.enumerate()) - before
    leave.set()
    look.join()
    assert answers(critic, 2) == [0.125, 0.0625]
    assert (critic.failovers, critic.failbacks) == (3, 0)


def test_it_closes_what_it_built_and_the_critic_it_was_given():
    first, second = NamedCritic(0.5, GONE, GONE), NamedCritic(GONE)
    critic = FailoverCritic(
        first, CriticFailurePolicy(fallbacks=[second, "scripted:0.75"], allow_other_critic=True)
    )
    assert answers(critic, 2) == [0.5, 0.75]
    critic.close_fallbacks()
    assert (first.is_closed, second.is_closed) == (False, False)
    critic.close()
    assert (first.is_closed, second.is_closed) == (True, False)
    assert critic.describe() == first.describe()


class Held(NamedCritic):
    """Waits at every question for `leave` when it has set `entered`."""

    takes_concurrent_calls = True

    def __init__(self, *probs: Any) -> None:
        super().__init__(*probs)
        self.entered, self.leave = threading.Event(), threading.Event()

    def success_prob(self, frames: Any, tasks: Any) -> Any:
        answer = super().success_prob(frames, tasks)
        self.entered.set()
        assert self.leave.wait(30.0)
        return answer

    def value(self, frames: Any, task: str, references: Any = None) -> Any:
        raise CriticServerError("full")


def test_an_answer_that_was_asked_for_before_another_thread_failed_over_changes_nobody():
    first, second = Held(0.5), NamedCritic(0.25)
    second._scripts["value"] = [[0.0]]
    policy = CriticFailurePolicy(fallbacks=[second], allow_other_critic=True)
    critic = FailoverCritic(first, policy)
    assert critic.takes_concurrent_calls
    with ThreadPoolExecutor(1) as other:
        early = other.submit(ask, critic)
        assert first.entered.wait(30.0)
        assert critic.value([FRAME], "t").tolist() == [0.0]
        first.leave.set()
        assert early.result() == 0.5
    assert critic.failovers == 1
    assert ask(critic) == 0.25


def test_a_fallback_that_takes_one_call_is_asked_in_turn():
    class Fallback(NamedCritic):
        users = most_users = 0

        def success_prob(self, frames: Any, tasks: Any) -> Any:
            self.users += 1
            self.most_users = max(self.most_users, self.users)
            time.sleep(0.01)
            self.users -= 1
            return super().success_prob(frames, tasks)

    first, second = NamedCritic(*[GONE] * 8), Fallback(*[0.25] * 8)
    first.takes_concurrent_calls = True
    critic = FailoverCritic(first, CriticFailurePolicy(fallbacks=[second], allow_other_critic=True))
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: ask(critic), range(8))) == [0.25] * 8
    assert (second.most_users, critic.failovers) == (1, 1)


def test_it_can_be_pickled():
    critic = FailoverCritic(NamedCritic(GONE, 0.5), CriticFailurePolicy(retries=1))
    assert ask(pickle.loads(pickle.dumps(critic))) == 0.5
