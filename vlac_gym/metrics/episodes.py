"""Metric names that every part of vlac_gym logs under, and `EpisodeMetrics`, which adds episodes up. numpy only.

Names follow RLinf's `env/…` and `rollout/…` where it has one; the `critic/…` names are ours.
"""

__all__ = [
    "CRITIC_FAILURES",
    "CRITIC_FALSE_NEGATIVE_RATE",
    "CRITIC_FALSE_POSITIVE_RATE",
    "CRITIC_LATENCY_MS",
    "CRITIC_SUCCESS_PROB",
    "EPISODE_LENGTH",
    "METRIC_NAMES",
    "REWARD_MEAN",
    "SUCCESS_RATE",
    "EpisodeMetrics",
]

import math
from dataclasses import dataclass

from vlac_gym.errors import ConfigError

SUCCESS_RATE = "env/success_rate"
EPISODE_LENGTH = "env/episode_length"
REWARD_MEAN = "rollout/reward_mean"
CRITIC_SUCCESS_PROB = "critic/success_prob"
CRITIC_LATENCY_MS = "critic/latency_ms"
CRITIC_FALSE_POSITIVE_RATE = "critic/false_positive_rate"
CRITIC_FALSE_NEGATIVE_RATE = "critic/false_negative_rate"
CRITIC_FAILURES = "critic/failures"

METRIC_NAMES: dict[str, str] = {
    SUCCESS_RATE: "share of episodes with a verdict of the simulator in which it saw success; [0, 1]",
    EPISODE_LENGTH: "mean env steps per episode",
    REWARD_MEAN: "mean undiscounted return per episode",
    CRITIC_SUCCESS_PROB: "mean of the critic's last success_prob per episode; [0, 1]",
    CRITIC_LATENCY_MS: "mean latency per check, over the episodes that had checks; ms",
    CRITIC_FALSE_POSITIVE_RATE: "episodes stopped as done / judged episodes without simulator success; [0, 1]",
    CRITIC_FALSE_NEGATIVE_RATE: "episodes not stopped / judged episodes with simulator success; [0, 1]",
    CRITIC_FAILURES: "critic requests without a usable answer; count",
}
"""Every metric name with its meaning and unit."""


@dataclass
class _Mean:
    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.total += value
        self.count += 1

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None


class EpisodeMetrics:
    """Adds episodes up into the metrics of `METRIC_NAMES`.

    A metric without data (a rate over no episodes) is None, never 0.

    Example:
        >>> metrics = EpisodeMetrics()
        >>> metrics.add(num_steps=100, episode_return=1.0, sim_success=True, critic_said_done=True)
        >>> metrics.add(num_steps=220, episode_return=0.5, sim_success=False, critic_said_done=False)
        >>> result = metrics.compute()
        >>> result["env/success_rate"], result["env/episode_length"], result["critic/false_positive_rate"]
        (0.5, 160.0, 0.0)
    """

    def __init__(self) -> None:
        self._means = {name: _Mean() for name in METRIC_NAMES if name != CRITIC_FAILURES}
        self._failures = 0

    def add(
        self,
        *,
        num_steps: int,
        episode_return: float,
        sim_success: bool | None,
        critic_said_done: bool | None = None,
        success_prob: float | None = None,
        latency_ms: float | None = None,
        critic_failures: int = 0,
    ) -> None:
        """Adds one finished episode.

        Args:
            num_steps: Env steps, 1 or more.
            episode_return: Undiscounted return, finite.
            sim_success: Whether the simulator saw success at any step; None if it gave no verdict.
            critic_said_done: Whether the critic ended the episode; None if it was not asked (eval mode).
            success_prob: The critic's last answer, None if it was not asked.
            latency_ms: Mean latency of the episode's checks, None if there were none.
            critic_failures: Requests without a usable answer.

        Raises:
            ConfigError: `num_steps` is below 1 or `episode_return` is not finite.
        """
        if num_steps < 1 or not math.isfinite(episode_return):
            raise ConfigError(
                f"Expected num_steps >= 1 and a finite return, got {num_steps} and {episode_return!r}."
            )
        if sim_success is not None:
            self._means[SUCCESS_RATE].add(float(sim_success))
        self._means[EPISODE_LENGTH].add(num_steps)
        self._means[REWARD_MEAN].add(episode_return)
        if success_prob is not None:
            self._means[CRITIC_SUCCESS_PROB].add(success_prob)
        if latency_ms is not None:
            self._means[CRITIC_LATENCY_MS].add(latency_ms)
        if critic_said_done is not None and sim_success is True:
            self._means[CRITIC_FALSE_NEGATIVE_RATE].add(float(not critic_said_done))
        if critic_said_done is not None and sim_success is False:
            self._means[CRITIC_FALSE_POSITIVE_RATE].add(float(critic_said_done))
        self._failures += critic_failures

    def compute(self) -> dict[str, float | None]:
        """All metrics over the episodes added so far; None where there is no data."""
        values: dict[str, float | None] = {name: mean.mean for name, mean in self._means.items()}
        values[CRITIC_FAILURES] = float(self._failures)
        return {name: values[name] for name in METRIC_NAMES}
