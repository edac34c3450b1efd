"""Critics that read the simulator instead of looking: `OracleCritic` and `NoisyOracleCritic`.

They are **privileged**: what they know is not in the picture. They bound what a learned critic can reach,
make demos and tests possible without weights, and must not be mistaken for a learned critic.
"""

__all__ = ["NoisyOracleCritic", "OracleCritic"]

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlac_gym.critic.base import check_frame, check_same_length, check_tasks, frame_digest
from vlac_gym.errors import ConfigError, CriticResponseError
from vlac_gym.spec_options import option_types, read_argument
from vlac_gym.types import CriticInfo, FloatArray, Frame


@dataclass(frozen=True)
class _Signal:
    success: bool
    goal_progress: float


class OracleCritic:
    """Privileged: answers from the simulator's success and distance to the goal.

    `success_prob` is 1.0 where the goal predicates hold and else 0.0. With g the env's `goal_progress`
    (in [0, 1]; 1 where the env reports success and 0 elsewhere if the env has none), the value of frame t
    is ``(g_t - g_0) / (1 - g_0)`` clipped to [0, 1], and the progress of a pair is
    ``(g_after - g_before) / (1 - g_before)`` clipped to [-1, 1], so that accumulating progress gives the
    value while nothing is lost. Signals are remembered per frame content and forgotten at the next episode.

    Raises:
        CriticResponseError: A frame was never observed (`observe`), so that nothing is known about it.
    """

    def __init__(self) -> None:
        self._signals: dict[int, dict[bytes, _Signal]] = {}

    @classmethod
    def from_spec(cls, argument: str, **options: Any) -> "OracleCritic":
        """Builds `oracle`; takes no argument."""
        if argument:
            raise ConfigError(f"The critic 'oracle' takes no argument, got {argument!r}.")
        return cls(**options)

    def begin_episode(self, env_index: int = 0) -> None:
        """Forgets the episode of environment `env_index`."""
        self._signals[env_index] = {}

    def observe(self, frame: Frame, info: Mapping[str, Any], env_index: int = 0) -> None:
        """Remembers the simulator's signals of `frame`; `info` needs `success` or `is_success`."""
        check_frame(frame)
        self._signals.setdefault(env_index, {})[frame_digest(frame)] = self._read(info, env_index)

    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> FloatArray:
        """1.0 where the goal predicates hold, else 0.0; the task texts are not read."""
        check_tasks(tasks)
        check_same_length(frames=frames, tasks=tasks)
        return np.array([self._signal(frame).success for frame in frames], dtype=np.float32)

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
        starts = [self._signal(frame).goal_progress for frame in before]
        ends = [self._signal(frame).goal_progress for frame in after]
        return np.array([_share(a, b) for a, b in zip(starts, ends, strict=True)], dtype=np.float32)

    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        """Completion relative to the first frame."""
        check_tasks([task])
        completions = [self._signal(frame).goal_progress for frame in frames]
        shares = [max(0.0, _share(completions[0], g)) for g in completions]
        return np.array(shares, dtype=np.float32)

    def describe(self) -> CriticInfo:
        """Names it, and says that it is privileged."""
        return CriticInfo(name="oracle", model="simulator", is_privileged=True)

    def close(self) -> None:
        """Forgets everything."""
        self._signals.clear()

    def _read(self, info: Mapping[str, Any], env_index: int) -> _Signal:
        key = next((key for key in ("success", "is_success") if key in info), None)
        if key is None:
            raise ConfigError(
                f"The privileged critic {self.describe().name!r} needs info['success'] from the env, got the keys "
                f"{sorted(info)}. Use a critic that looks at frames, or an env that reports success."
            )
        success = bool(info[key])
        return _Signal(success, float(info.get("goal_progress", success)))

    def _signal(self, frame: Frame) -> _Signal:
        check_frame(frame)
        digest = frame_digest(frame)
        for signals in self._signals.values():
            if digest in signals:
                return signals[digest]
        raise CriticResponseError(
            f"The privileged critic {self.describe().name!r} knows nothing of this {frame.shape} frame: it reads "
            "the simulator and not pictures, so each frame must be given to observe() first."
        )


class NoisyOracleCritic(OracleCritic):
    """Privileged: the oracle with chosen error rates, for studying what a critic's errors do to training.

    A check says 1.0 with probability `tpr` where the (delayed) simulator says success and `fpr` elsewhere,
    else 0.0. The draws of one episode come from a Gaussian copula: a latent AR(1) process with coefficient
    `autocorrelation`, mapped to a uniform by the normal distribution function, so that the rates hold
    exactly at every step whatever the autocorrelation. There is one draw per observed frame, and asking
    again about a frame gives the same answer. Values and progress are the oracle's.

    Args:
        tpr: True-positive rate per check, [0, 1].
        fpr: False-positive rate per check, [0, 1].
        delay: Observed frames by which success is seen late (and its loss, too), >= 0.
        autocorrelation: Of the latent process between neighbouring observed frames, [0, 1).
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
        super().__init__()
        for name, rate in (("tpr", tpr), ("fpr", fpr)):
            if not 0.0 <= rate <= 1.0:
                raise ConfigError(f"Expected noisy_oracle {name} in [0, 1], got {rate!r}.")
        if delay < 0 or seed < 0:
            raise ConfigError(f"Expected noisy_oracle delay and seed >= 0, got {delay!r} and {seed!r}.")
        if not 0.0 <= autocorrelation < 1.0:
            raise ConfigError(f"Expected noisy_oracle autocorrelation in [0, 1), got {autocorrelation!r}.")
        self._tpr, self._fpr = tpr, fpr
        self._delay, self._autocorrelation, self._seed = delay, autocorrelation, seed
        self._episodes: dict[int, int] = {}
        self._streams: dict[int, _NoiseStream] = {}

    @classmethod
    def from_spec(cls, argument: str, **options: Any) -> "NoisyOracleCritic":
        """Builds `noisy_oracle:tpr=0.8,fpr=0.05,delay=2,autocorrelation=0.5,seed=1`; every part is optional."""
        _, options = read_argument(
            argument, option_types(cls), "noisy_oracle", given=options, has_target=False
        )
        return cls(**options)

    def begin_episode(self, env_index: int = 0) -> None:
        """Forgets the episode of environment `env_index` and starts its next stream of draws."""
        super().begin_episode(env_index)
        episode = self._episodes.get(env_index, -1) + 1
        self._episodes[env_index] = episode
        rng = np.random.default_rng((self._seed, env_index, episode))
        self._streams[env_index] = _NoiseStream(rng, self._autocorrelation, self._delay)

    def describe(self) -> CriticInfo:
        """Names it with its parameters, and says that it is privileged."""
        details = {
            "tpr": self._tpr,
            "fpr": self._fpr,
            "delay": self._delay,
            "autocorrelation": self._autocorrelation,
            "seed": self._seed,
        }
        return CriticInfo(name="noisy_oracle", model="simulator", is_privileged=True, details=details)

    def _read(self, info: Mapping[str, Any], env_index: int) -> _Signal:
        truth = super()._read(info, env_index)
        if env_index not in self._streams:
            self.begin_episode(env_index)
        seen, uniform = self._streams[env_index].draw(truth.success)
        return _Signal(uniform < (self._tpr if seen else self._fpr), truth.goal_progress)


class _NoiseStream:
    """Delayed success and a uniform in (0, 1) for each frame of one episode."""

    def __init__(self, rng: np.random.Generator, autocorrelation: float, delay: int) -> None:
        self._rng = rng
        self._autocorrelation = autocorrelation
        self._latent = rng.standard_normal()
        self._is_first = True
        self._successes = deque([False] * delay, maxlen=delay + 1)

    def draw(self, success: bool) -> tuple[bool, float]:
        if not self._is_first:
            fresh = math.sqrt(1.0 - self._autocorrelation**2) * self._rng.standard_normal()
            self._latent = self._autocorrelation * self._latent + fresh
        self._is_first = False
        self._successes.append(success)
        return self._successes[0], 0.5 * (1.0 + math.erf(self._latent / math.sqrt(2.0)))


def _share(start: float, end: float) -> float:
    """Change from start to end as a share of what was left at the start, in [-1, 1]."""
    left = 1.0 - start
    change = end - start
    return max(-1.0, min(1.0, change / left if left > 0.0 else change))
