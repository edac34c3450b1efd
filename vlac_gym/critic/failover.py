"""A critic with others in reserve: `FailoverCritic`."""

__all__ = ["FailoverCritic"]

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import TypeVar

from vlac_gym.critic.base import BaseCritic, Critic
from vlac_gym.critic.failure_policy import CriticFailurePolicy
from vlac_gym.critic.fresh_lock import FreshLock
from vlac_gym.critic.registry import make_critic
from vlac_gym.critic.retries import RetryPolicy, call_with_retries
from vlac_gym.critic.wrapper import CriticWrapper, adapted
from vlac_gym.errors import (
    ConfigError,
    CriticConnectionError,
    CriticError,
    CriticOverloadedError,
    CriticProtocolError,
    CriticResponseError,
)
from vlac_gym.types import CriticInfo

_FIRST_PAUSE_S = 0.25

_T = TypeVar("_T")

logger = logging.getLogger(__name__)


class FailoverCritic(CriticWrapper):
    """Asks again, then asks the fallbacks, and goes back to the first critic once that answers again.

    It describes itself as the first critic, sleeps and wakes with it; fallbacks only answer questions. Threads may ask
    it at once where the first critic says so; fallbacks that don't say it are asked in turn.

    Args:
        critic: The one that answers as long as it can.
        policy: `retries`, `fallbacks`, `allow_other_critic`, `failback_s`.
        clock: Monotonic seconds.
    """

    def __init__(
        self, critic: Critic, policy: CriticFailurePolicy, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(critic)
        self.takes_device_frames = self.critic.takes_device_frames and not policy.fallbacks
        self._policy = policy
        self._clock = clock
        self._retry_policy = RetryPolicy(max_tries=policy.retries + 1, backoff_s=_FIRST_PAUSE_S)
        self._lock = FreshLock()  # of all that follows
        self._turn = FreshLock()  # to ask a fallback that takes one call at a time
        self._built: dict[int, BaseCritic] = {}  # by place in `policy.fallbacks`
        self._compared: set[int] = set()
        self._is_compared_once = False
        self._fingerprint: str | None = None  # of the first critic, once it has answered
        self._current: int | None = None  # place of the fallback that answers; None for the first critic
        self._own_retries = self._own_failovers = self._own_failbacks = 0
        self._look_at = 0.0
        self._look: threading.Thread | None = None
        self._is_back = False

    @property
    def retries(self) -> int:
        """Attempts after the first, of all critics in this process."""
        return self._own_retries + sum(critic.retries for critic in self._all_built())

    @property
    def failovers(self) -> int:
        """How often another server or critic took over, in this process."""
        return self._own_failovers + sum(critic.failovers for critic in self._all_built())

    @property
    def failbacks(self) -> int:
        """How often the first critic has come back, of all critics in this process."""
        return self._own_failbacks + sum(critic.failbacks for critic in self._all_built())

    def identify(self, *, retry: bool = True) -> CriticInfo:
        """Of whoever answers; the first time, those fallbacks that can be reached are compared.

        Raises:
            ConfigError: A fallback is another critic, and `allow_other_critic` is False.
            CriticError: Nobody answers.
        """
        info = super().identify(retry=retry)
        with self._lock:
            if not self._is_compared_once and self._fingerprint is not None:
                for place in range(len(self._policy.fallbacks)):
                    self._compare_early(place)
                self._is_compared_once = True
        return info

    def close(self) -> None:
        """Closes the first critic, and the fallbacks that were given as specs."""
        self.close_fallbacks()
        super().close()

    def close_fallbacks(self) -> None:
        """Closes the fallbacks that were given as specs; a later question builds them anew."""
        if (look := self._look) is not None:
            look.join(1.0)
        for place, critic in list(self._built.items()):
            if isinstance(self._policy.fallbacks[place], str):
                critic.close()
        self._built.clear()
        self._compared.clear()

    def _ask(self, call: Callable[[BaseCritic], _T]) -> _T:
        """The answer of the first that has one, in the order in which they are to be asked.

        Raises:
            CriticError: Nobody has one, or a reply holds no number.
        """
        with self._lock:
            self._go_back()
            order = list(self._order())
        errors: list[CriticError] = []
        for place in order:
            try:
                with self._lock:
                    critic = self._verified(place)
                answer = self._try(critic, call)
            except CriticResponseError:
                raise
            except CriticError as e:
                errors.append(e)
                continue
            with self._lock:
                # Without errors it was asked first; since then another thread may have found someone else.
                if errors and place != self._current:
                    self._take_over(place, errors)
                if place is None and self._fingerprint is None:
                    self._fingerprint = self.critic.describe().fingerprint
            return answer
        raise _joined(errors)

    def _try(self, critic: BaseCritic, call: Callable[[BaseCritic], _T]) -> _T:
        asks_in_turn = self.takes_concurrent_calls and not critic.takes_concurrent_calls
        with self._turn if asks_in_turn else nullcontext():
            return self._repeated(critic, call)

    def _repeated(self, critic: BaseCritic, call: Callable[[BaseCritic], _T]) -> _T:
        if not self._policy.retries:
            return call(critic)
        attempts = 0

        def attempt(_: float) -> _T:
            nonlocal attempts
            attempts += 1
            return call(critic)

        try:
            return call_with_retries(attempt, self._retry_policy)
        finally:
            with self._lock:
                self._own_retries += attempts - 1

    def _order(self) -> Iterator[int | None]:
        """Whoever answered last, then the first critic, then the fallbacks."""
        yield self._current
        for place in (None, *range(len(self._policy.fallbacks))):
            if place != self._current:
                yield place

    def _verified(self, place: int | None) -> BaseCritic:
        """The critic at this place, if its answers may stand for the first one's."""
        if place is None:
            return self.critic
        critic = self._fallback(place)
        if self._policy.allow_other_critic or place in self._compared:
            return critic
        if self._fingerprint is None:
            raise CriticConnectionError(
                f"Fallback {self._name(place)} was not asked: the critic itself has not answered yet, so that they "
                "can't be compared. Start it once, or set allow_other_critic."
            )
        if (difference := self._difference(place, critic.identify(retry=False))) is not None:
            raise CriticProtocolError(difference)
        self._compared.add(place)
        return critic

    def _compare_early(self, place: int) -> None:
        try:
            info = self._fallback(place).identify(retry=False)
        except CriticError as e:
            logger.warning(
                "whether fallback %s is the same critic is not known yet: %s", self._name(place), e
            )
            return
        difference = self._difference(place, info)
        if difference is None:
            self._compared.add(place)
        elif not self._policy.allow_other_critic:
            raise ConfigError(difference)
        else:
            logger.warning("%s", difference)

    def _difference(self, place: int, info: CriticInfo) -> str | None:
        if info.fingerprint == self._fingerprint:
            return None
        return (
            f"Expected fallback {self._name(place)} to be the critic of fingerprint {self._fingerprint}, got "
            f"{info.fingerprint} ({info.name}, {info.model}): rewards of two critics would mix in one batch. Serve the "
            "same critic there, or set allow_other_critic."
        )

    def _fallback(self, place: int) -> BaseCritic:
        if place not in self._built:
            given = self._policy.fallbacks[place]
            self._built[place] = make_critic(given) if isinstance(given, str) else adapted(given)
        return self._built[place]

    def _all_built(self) -> list[BaseCritic]:
        return [self.critic, *self._built.values()]

    def _name(self, place: int | None) -> str:
        return str(self.critic if place is None else self._policy.fallbacks[place])

    def _take_over(self, place: int | None, errors: Sequence[CriticError]) -> None:
        """Someone else has answered than before."""
        self._own_failovers += 1
        logger.warning("critic: %s; from now on %s is asked", errors[0], self._name(place))
        self._current = place
        self._look_at = self._clock() + self._policy.failback_s
        self._look, self._is_back = None, False  # what a look begun before finds is old news by now

    # Back to the first critic. It is looked for in a thread: a server that hangs must hold up no question.

    def _go_back(self) -> None:
        if self._current is None or (self._look is not None and self._look.is_alive()):
            return
        if self._is_back:
            self._is_back, self._look, self._current = False, None, None
            self._own_failbacks += 1
            logger.warning("critic: %s answers again and is asked from now on", self._name(None))
        elif self._clock() >= self._look_at:
            self._look_at = self._clock() + self._policy.failback_s
            self._look = threading.Thread(target=self._look_for_first, name="vlac-gym-failback", daemon=True)
            self._look.start()

    def _look_for_first(self) -> None:
        try:
            self.critic.identify(retry=False)
        except (CriticError, ConfigError):
            return
        with self._lock:
            if self._look is threading.current_thread():
                self._is_back = True


def _joined(errors: Sequence[CriticError]) -> CriticError:
    """One error for all critics that were asked, of the first one's class."""
    first = errors[0]
    if len(errors) == 1:
        return first
    text = "; then ".join(str(error) for error in errors)
    if isinstance(first, CriticOverloadedError):
        return CriticOverloadedError(text, first.retry_after_s)
    return type(first)(text)
