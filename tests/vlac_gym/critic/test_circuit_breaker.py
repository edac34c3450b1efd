"""When too much is lost to the critic; times are given."""

from collections.abc import Iterable

import pytest

from vlac_gym.critic.circuit_breaker import CircuitBreaker
from vlac_gym.critic.failure_policy import CriticFailurePolicy
from vlac_gym.errors import CircuitBreakerError, CriticConnectionError, CriticError


def breaker(times: Iterable[float] = (), **limits: object) -> CircuitBreaker:
    clock = iter(times)
    policy = CriticFailurePolicy(**{"max_silence_s": None, **limits})
    return CircuitBreaker(policy, clock=lambda: next(clock, 0.0))


def test_it_opens_at_the_third_failed_episode_in_a_row_and_stays_open():
    one = breaker(max_consecutive_failed_episodes=3)
    for failed in (True, True, False, True, True):
        one.note_end(failed=failed)
    one.check()
    one.note_failure(CriticConnectionError("nobody at one:8400"))
    one.note_end(failed=True)
    expected = (
        r"open: 3 episodes in a row failed \(max_consecutive_failed_episodes=3\)\. The run stops here .*"
        r"Last error: CriticConnectionError: nobody at one:8400$"
    )
    with pytest.raises(CircuitBreakerError, match=expected) as caught:
        one.check()
    assert isinstance(caught.value.__cause__, CriticConnectionError)
    one.note_answer()
    one.note_end(failed=False)
    with pytest.raises(CircuitBreakerError, match="3 episodes in a row"):
        one.check()
    assert one.failed_episodes == 5


def test_it_opens_when_more_than_the_share_of_a_whole_window_failed():
    one = breaker(max_failed_share=0.5, window_episodes=4)
    for failed in (True, True, True):  # no whole window yet
        one.note_end(failed=failed)
        one.check()
    one.note_end(failed=False)
    with pytest.raises(
        CircuitBreakerError, match=r"3 of the last 4 episodes failed \(max_failed_share=0\.5\)"
    ):
        one.check()


def test_half_of_a_window_is_not_more_than_half():
    one = breaker(max_failed_share=0.5, window_episodes=4)
    for failed in (True, False) * 4:
        one.note_end(failed=failed)
    one.check()


def test_silence_is_counted_from_the_first_failure_after_an_answer():
    one = breaker([100.0, 150.0, 200.0, 259.0, 260.0], max_silence_s=60)
    one.note_failure(CriticError("a"))
    one.note_failure(CriticError("b"))
    one.note_answer()
    one.note_failure(CriticError("c"))
    one.note_failure(CriticError("d"))
    one.check()
    one.note_failure(CriticError("e"))
    with pytest.raises(
        CircuitBreakerError, match=r"no usable answer for 60 s \(max_silence_s=60\).*CriticError: e"
    ):
        one.check()


def test_without_limits_it_never_opens():
    one = breaker(range(0, 10**6, 1000))
    for _ in range(500):
        one.note_failure(CriticError("gone"))
        one.note_end(failed=True)
    one.check()
    assert one.failed_episodes == 500
