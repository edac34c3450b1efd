"""Bounded tries within one deadline: `RetryPolicy`, `call_with_retries`, `RETRIED`."""

__all__ = ["RETRIED", "RetryPolicy", "call_with_retries"]

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from vlac_gym.errors import (
    ConfigError,
    CriticConnectionError,
    CriticError,
    CriticOverloadedError,
    CriticTimeoutError,
)

T = TypeVar("T")

RETRIED = (CriticConnectionError, CriticTimeoutError, CriticOverloadedError)
"""Errors that may pass on their own."""

_MAX_BACKOFF_S = 10.0
_JITTER = random.Random()  # its own state: a retry must not change a program's random numbers


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to try.

    Attributes:
        max_tries: Tries in all, the first included; >= 1.
        backoff_s: Mean wait before the second try in seconds, doubling with each; the wait is drawn from
            half to one and a half of it, so that many clients do not come back at once. At most 10 s.
        deadline_s: All tries and waits together, in seconds; infinite where each try has its own deadline.
    """

    max_tries: int
    backoff_s: float
    deadline_s: float = math.inf

    def __post_init__(self) -> None:
        if self.max_tries < 1 or self.backoff_s < 0 or not self.deadline_s > 0:
            raise ConfigError(
                "Expected max_tries >= 1, backoff_s >= 0 and deadline_s > 0, "
                f"got {self.max_tries}, {self.backoff_s} and {self.deadline_s}."
            )


def call_with_retries(call: Callable[[float], T], policy: RetryPolicy) -> T:
    """Calls until it succeeds, fails for good, or tries or time are used up.

    Args:
        call: Gets the seconds that are left; must not take longer.
        policy: Bounds.

    Raises:
        CriticConnectionError, CriticTimeoutError, CriticOverloadedError: The last try's, with the number of
            tries in its message.
        Exception: Whatever else `call` raises, at once.
    """
    deadline = time.monotonic() + policy.deadline_s
    tries = 0
    while True:
        tries += 1
        try:
            return call(max(deadline - time.monotonic(), 0.001))
        except RETRIED as e:
            if tries >= policy.max_tries:
                raise _with_tries(e, tries, policy) from e
            wait_s = _wait_s(e, tries, policy)
            if time.monotonic() + wait_s >= deadline:
                raise _with_tries(e, tries, policy) from e
            time.sleep(wait_s)


def _wait_s(error: CriticError, tries: int, policy: RetryPolicy) -> float:
    """Backoff with jitter, or longer if the server asks for it."""
    backoff_s = min(policy.backoff_s * float(2 ** (tries - 1)), _MAX_BACKOFF_S)
    jittered_s = backoff_s * _JITTER.uniform(0.5, 1.5)
    asked_s = error.retry_after_s if isinstance(error, CriticOverloadedError) else None
    return max(jittered_s, asked_s or 0.0)


def _with_tries(error: CriticError, tries: int, policy: RetryPolicy) -> CriticError:
    deadline = f", deadline {policy.deadline_s:g} s" if math.isfinite(policy.deadline_s) else ""
    message = f"{error} (try {tries} of {policy.max_tries}{deadline})"
    if isinstance(error, CriticOverloadedError):
        return CriticOverloadedError(message, error.retry_after_s)
    return type(error)(message)
