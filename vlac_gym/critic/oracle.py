"""Critics that read the simulator instead of looking: `OracleCritic` and `NoisyOracleCritic`.

They are **privileged**: what they know is not in the picture. They bound what a learned critic can reach,
make demos and tests possible without weights, and must not be mistaken for a learned critic.
"""

__all__ = ["NoisyOracleCritic", "OracleCritic"]

import math
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from vlac_gym.checks import check_unit
from vlac_gym.critic.base import BaseCritic, check_same_length, check_tasks
from vlac_gym.critic.signals import EpisodeSignals, FrameSignals, signals_of
from vlac_gym.errors import ConfigError
from vlac_gym.specs.options import option_types, read_argument
from vlac_gym.types import CriticInfo, FloatArray, Frame


class OracleCritic(BaseCritic):
    """Privileged: answers from the simulator's success and distance to the goal.

    `success_prob` is 1.0 where the goal predicates hold and else 0.0. With g the env's `goal_progress`
    (in [0, 1]; 1 where the env reports success and 0 elsewhere if the env has none), the value of frame t
    is ``(g_t - g_0) / (1 - g_0)`` clipped to [0, 1], and the progress of a pair is
    ``(g_after - g_before) / (1 - g_before)`` clipped to [-1, 1], so that accumulating progress gives the
    value while nothing is lost. It judges frames with signals (`vlac_gym.critic.signals`) and refuses others with
    `ConfigError`.
    """

    _name = "oracle"

    @classmethod
    def from_spec(cls, argument: str, **options: Any) -> "OracleCritic":
        """Builds `oracle`; takes no argument."""
        if argument:
            raise ConfigError(f"The critic 'oracle' takes no argument, got {argument!r}.")
        return cls(**options)

    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> FloatArray:
        """1.0 where the goal predicates hold, else 0.0; the task texts are not read."""
        check_tasks(tasks)
        check_same_length(frames=frames, tasks=tasks)
        return np.array([self._is_done(signals_of(frame, self._name)) for frame in frames], dtype=np.float32)

    def progress(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> FloatArray:
        """Share of the remaining distance that was covered (or, negative, lost); references are not read."""
        check_tasks(tasks)
        check_same_length(before=before, after=after, tasks=tasks)
        starts = [signals_of(frame, self._name).goal_progress for frame in before]
        ends = [signals_of(frame, self._name).goal_progress for frame in after]
        return np.array([_share(a, b) for a, b in zip(starts, ends, strict=True)], dtype=np.float32)

    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        """Completion relative to the first frame."""
        check_tasks([task])
        completions = [signals_of(frame, self._name).goal_progress for frame in frames]
        shares = [max(0.0, _share(completions[0], g)) for g in completions]
        return np.array(shares, dtype=np.float32)

    def describe(self) -> CriticInfo:
        """Names it, and says that it is privileged."""
        return CriticInfo(name=self._name, model="simulator", is_privileged=True)

    def _is_done(self, signals: FrameSignals) -> bool:
        return signals.success


class NoisyOracleCritic(OracleCritic):
    """Privileged: the oracle with chosen error rates, for studying what a critic's errors do to training.

    A check says 1.0 with probability `tpr` where the (delayed) simulator says success and `fpr` elsewhere,
    else 0.0. The draws of one episode come from a Gaussian copula: a latent AR(1) process with coefficient
    `autocorrelation`, mapped to a uniform by the normal distribution function, so that the rates hold
    exactly at every step whatever the autocorrelation. There is one draw per frame that signals were attached to,
    and asking again about a frame gives the same answer. Values and progress are the oracle's.

    Args:
        tpr: True-positive rate per check, [0, 1].
        fpr: False-positive rate per check, [0, 1].
        delay: Frames with signals by which success is seen late (and its loss, too), >= 0.
        autocorrelation: Of the latent process between neighbouring frames with signals, [0, 1).
        seed: Of the draws; episode k of environment i has its own stream.

    Raises:
        ConfigError: A parameter is out of its range.
    """

    def __init__(
        self,
        tpr: float = 1.0,
        fpr: float = 0.0,
        delay: int = 0,
        autocorrelation: float = 0.0,
        seed: int = 0,
    ) -> None:
        for name, rate in (("tpr", tpr), ("fpr", fpr)):
            check_unit(f"noisy_oracle {name}", rate)
        if delay < 0 or seed < 0:
            raise ConfigError(f"Expected noisy_oracle delay and seed >= 0, got {delay!r} and {seed!r}.")
        if not 0.0 <= autocorrelation < 1.0:
            raise ConfigError(f"Expected noisy_oracle autocorrelation in [0, 1), got {autocorrelation!r}.")
        self._tpr, self._fpr = tpr, fpr
        self._delay, self._autocorrelation, self._seed = delay, autocorrelation, seed
        self._streams: WeakKeyDictionary[EpisodeSignals, _NoiseStream] = WeakKeyDictionary()

    _name = "noisy_oracle"

    @classmethod
    def from_spec(cls, argument: str, **options: Any) -> "NoisyOracleCritic":
        """Builds `noisy_oracle:tpr=0.8,fpr=0.05,delay=2,autocorrelation=0.5,seed=1`; every part is optional."""
        _, options = read_argument(
            argument, option_types(cls), "noisy_oracle", given=options, has_target=False
        )
        return cls(**options)

    def describe(self) -> CriticInfo:
        """Names it with its parameters, and says that it is privileged."""
        details = {
            "tpr": self._tpr,
            "fpr": self._fpr,
            "delay": self._delay,
            "autocorrelation": self._autocorrelation,
            "seed": self._seed,
        }
        return CriticInfo(name=self._name, model="simulator", is_privileged=True, details=details)

    def _is_done(self, signals: FrameSignals) -> bool:
        episode = signals.episode
        if episode not in self._streams:
            rng = np.random.default_rng((self._seed, episode.env_index, episode.episode))
            self._streams[episode] = _NoiseStream(rng, self._autocorrelation)
        seen_at = signals.number - self._delay
        seen = seen_at >= 0 and episode.successes[seen_at]
        return self._streams[episode].uniform(signals.number) < (self._tpr if seen else self._fpr)


class _NoiseStream:
    """A uniform in (0, 1) for each frame of one episode."""

    def __init__(self, rng: np.random.Generator, autocorrelation: float) -> None:
        self._rng = rng
        self._autocorrelation = autocorrelation
        self._latents = [float(rng.standard_normal())]

    def uniform(self, number: int) -> float:
        while len(self._latents) <= number:
            fresh = math.sqrt(1.0 - self._autocorrelation**2) * self._rng.standard_normal()
            self._latents.append(self._autocorrelation * self._latents[-1] + fresh)
        return 0.5 * (1.0 + math.erf(self._latents[number] / math.sqrt(2.0)))


def _share(start: float, end: float) -> float:
    """Change from start to end as a share of what was left at the start, in [-1, 1]."""
    left = 1.0 - start
    change = end - start
    return max(-1.0, min(1.0, change / left if left > 0.0 else change))
