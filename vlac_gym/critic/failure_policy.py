"""What happens when the critic gives no usable answer, wherever it is asked: `CriticFailurePolicy`."""

__all__ = ["CriticFailurePolicy", "OnCriticError", "failure_policy"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlac_gym.checks import check_choice, check_int, is_number
from vlac_gym.critic.base import Critic
from vlac_gym.critic.registry import check_critic
from vlac_gym.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CriticFailurePolicy:
    """Ask again, ask another server, give the episode up, and stop the run when too much was lost.

    In this order: the critic's own attempts (`RemoteCritic` has `max_attempts`), `retries`, `fallbacks`, `then`, and
    the circuit breaker (`max_…`), which raises `CircuitBreakerError` and stays open.

    Attributes:
        then: `raise` the error, or `truncate` the episodes concerned: reward 0.0, and ``info["critic"]["failed"]``
            True, by which a trainer masks them.
        retries: How often each critic is asked a question again that was lost to its connection, its deadline or
            overload; >= 0. Pauses double from 0.25 s.
        fallbacks: Critics or specs, asked in this order when the critic has failed; whoever answers is kept. Not asked
            when a reply holds no number: an equal critic gives the same one.
        allow_other_critic: Ask fallbacks whose fingerprint differs from the critic's, or can't be compared yet as the
            critic has never answered. Rewards of two critics are not the same reward, so that this is False.
        failback_s: How long after it failed the critic is looked for again while a fallback answers, s; its answer
            brings it back.
        max_consecutive_failed_episodes: The breaker opens at this many failed episodes without a whole one between
            them; None for no such limit. Envs that are asked about together fail together: give more than there are.
        max_failed_share: It opens when more than this share, [0, 1), of the last `window_episodes` episodes failed.
        window_episodes: See there; >= 1. Nothing opens before so many episodes have ended.
        max_silence_s: It opens when questions fail and the first failure since the last usable answer is this old, s.

    Raises:
        ConfigError: One of them can't be that.
    """

    then: Literal["raise", "truncate"] = "raise"
    retries: int = 0
    fallbacks: Sequence[Critic | str] = ()
    allow_other_critic: bool = False
    failback_s: float = 60.0
    max_consecutive_failed_episodes: int | None = None
    max_failed_share: float | None = None
    window_episodes: int = 100
    max_silence_s: float | None = 600.0

    def __post_init__(self) -> None:
        check_choice("on_critic_error", self.then, ("raise", "truncate"))
        if isinstance(self.fallbacks, str) or not isinstance(self.fallbacks, Sequence):
            raise ConfigError(
                f"Expected fallbacks as a sequence of critics or specs, got {self.fallbacks!r}."
            )
        for critic in self.fallbacks:
            check_critic(critic)
        object.__setattr__(self, "fallbacks", tuple(self.fallbacks))
        if not isinstance(self.allow_other_critic, bool):
            raise ConfigError(
                f"Expected allow_other_critic as True or False, got {self.allow_other_critic!r}."
            )
        check_int("retries", self.retries, minimum=0)
        check_int("window_episodes", self.window_episodes, minimum=1)
        if self.max_consecutive_failed_episodes is not None:
            check_int("max_consecutive_failed_episodes", self.max_consecutive_failed_episodes, minimum=1)
        _check_seconds("failback_s", self.failback_s)
        if self.max_silence_s is not None:
            _check_seconds("max_silence_s", self.max_silence_s)
        share = self.max_failed_share
        if share is not None and not (is_number(share) and 0 <= share < 1):
            raise ConfigError(f"Expected max_failed_share in [0, 1) or None, got {share!r}.")


OnCriticError = Literal["raise", "truncate"] | CriticFailurePolicy
"""What the wrappers take: a policy, or its `then` where the rest stays as it is."""


def failure_policy(given: OnCriticError, name: str = "on_critic_error") -> CriticFailurePolicy:
    """The policy that is meant.

    Args:
        given: See `OnCriticError`.
        name: What the argument is called, for the message.

    Raises:
        ConfigError: It is no policy and names none.
    """
    if isinstance(given, CriticFailurePolicy):
        return given
    check_choice(name, given, ("raise", "truncate"))
    return CriticFailurePolicy(then=given)


def _check_seconds(name: str, value: object) -> None:
    if not (is_number(value) and value > 0):
        raise ConfigError(f"Expected {name} above 0, got {value!r}.")
