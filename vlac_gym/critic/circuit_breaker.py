"""What stops a run whose critic is absent, before it has burnt hours without reward: `CircuitBreaker`."""

__all__ = ["CircuitBreaker"]

import time
from collections import deque
from collections.abc import Callable

from vlac_gym.critic.failure_policy import CriticFailurePolicy
from vlac_gym.errors import CircuitBreakerError, CriticError


class CircuitBreaker:
    """Counts what is lost to the critic, and opens, for good, when that is more than the policy allows.

    Args:
        policy: Its limits.
        clock: Monotonic seconds.

    Attributes:
        failed_episodes: Episodes that failed, so far.

    Example:
        >>> breaker = CircuitBreaker(CriticFailurePolicy(max_consecutive_failed_episodes=2))
        >>> for _ in range(2):
        ...     breaker.note_failure(CriticError("gone"))
        ...     breaker.note_end(failed=True)
        >>> breaker.check()
        Traceback (most recent call last):
            ...
        vlac_gym.errors.CircuitBreakerError: The critic's circuit breaker is open: 2 episodes in a row failed (…)…
    """

    def __init__(self, policy: CriticFailurePolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self.failed_episodes = 0
        self._policy = policy
        self._clock = clock
        self._silent_since: float | None = None
        self._in_a_row = 0
        self._window: deque[bool] = deque(maxlen=policy.window_episodes)
        self._last_error: CriticError | None = None
        self._why: str | None = None

    def note_answer(self) -> None:
        """There was a usable answer."""
        self._silent_since = None

    def note_failure(self, error: CriticError) -> None:
        """A question has no usable answer, after all retries and fallbacks."""
        self._last_error = error
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
        limit, silence_s = self._policy.max_silence_s, now - self._silent_since
        if limit is not None and silence_s >= limit:
            self._open(f"no usable answer for {silence_s:.0f} s (max_silence_s={limit:g})")

    def note_end(self, *, failed: bool) -> None:
        """A training episode has ended, by the rule or because the critic failed."""
        self.failed_episodes += failed
        self._in_a_row = self._in_a_row + 1 if failed else 0
        self._window.append(failed)
        limit = self._policy.max_consecutive_failed_episodes
        if limit is not None and self._in_a_row >= limit:
            self._open(f"{self._in_a_row} episodes in a row failed (max_consecutive_failed_episodes={limit})")
        share, count = self._policy.max_failed_share, len(self._window)
        if share is not None and count == self._window.maxlen and sum(self._window) > share * count:
            self._open(
                f"{sum(self._window)} of the last {count} episodes failed (max_failed_share={share:g})"
            )

    def check(self) -> None:
        """Raises if the breaker is open.

        Raises:
            CircuitBreakerError: As it says; with the critic's last error as its cause.
        """
        if self._why is not None:
            raise CircuitBreakerError(
                f"The critic's circuit breaker is open: {self._why}. The run stops here instead of going on without "
                "reward. See whether the critic is up (`vlac-gym serve`, its /readyz and its log) and start the run "
                "again from its last checkpoint; give a fallback critic, or other limits, in on_critic_error. "
                f"Last error: {type(self._last_error).__name__}: {self._last_error}"
            ) from self._last_error

    def _open(self, why: str) -> None:
        self._why = self._why or why
