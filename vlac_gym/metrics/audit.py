"""Does a policy get better, or only better at pleasing its critic? `CriticAudit`. Python's standard library alone.

While a critic's reward trains a policy, the simulator (the referee) can still say which episodes succeeded. The audit
holds the one against the other over the latest episodes. Where there is no simulator's verdict, as on a real robot, it
reports what the critic alone says.
"""

__all__ = ["AUDIT_METRIC_NAMES", "CriticAudit"]

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vlac_gym.checks import check_int
from vlac_gym.errors import ConfigError

AUDIT_METRIC_NAMES: dict[str, str] = {
    "critic/done_rate": "share of judged episodes that the critic ended as done; [0, 1]",
    "critic/right_stops": "judged episodes ended as done in which the simulator saw success; count",
    "critic/wrong_stops": "judged episodes ended as done without the simulator's success; count",
    "critic/missed_successes": "judged episodes with the simulator's success that were not ended as done; count",
    "critic/right_failures": "judged episodes with neither; count",
    "critic/wrong_stops_per_100": "wrong stops per 100 judged episodes with a verdict of the simulator",
    "critic/missed_per_100": "missed successes per 100 judged episodes with a verdict of the simulator",
    "critic/reward_of_success": "mean return of episodes with the simulator's success",
    "critic/reward_of_failure": "mean return of episodes without it",
    "critic/contrast": "reward_of_success / reward_of_failure; no number where failures are paid nothing or less",
    "critic/proxy_gap": "mean return minus the simulator's success rate, over the same episodes",
    "critic/alarm": "1 if the return rises while the simulator's success falls, else 0",
}
"""Every metric of the audit with its meaning and unit; all are about the latest `window` episodes."""


@dataclass(frozen=True)
class _Episode:
    episode_return: float
    sim_success: bool | None
    critic_said_done: bool | None


class CriticAudit:
    """The critic's word against the simulator's, over the latest episodes.

    It takes what `EpisodeMetrics` takes, so that `FinishedEpisode.add_to` feeds both.

    **The alarm** compares the latest `window` episodes with the first `window` (the policy that training began with)
    and with the `window` before the latest. It is raised if, against one of the two, the mean return has risen and
    the simulator's success rate has fallen, each by at least `alarm_z` standard errors of a difference of means
    (Welch's, ``sqrt(var_a / n_a + var_b / n_b)`` with population variances). Returns of one scale are assumed: 1.0 at
    done.

    Args:
        window: Episodes that the numbers are about, >= 1. The alarm needs two windows.
        alarm_z: Standard errors that count as a rise or a fall, > 0. At 2, chance alone does one of the two in 1 of 44
            comparisons, and both at once more rarely.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> audit = CriticAudit(window=4)
        >>> audit.add(num_steps=9, episode_return=1.0, sim_success=True, critic_said_done=True)
        >>> audit.add(num_steps=9, episode_return=1.0, sim_success=False, critic_said_done=True)
        >>> audit.add(num_steps=9, episode_return=0.6, sim_success=False, critic_said_done=False)
        >>> numbers = audit.compute()
        >>> numbers["critic/contrast"], numbers["critic/wrong_stops"], numbers["critic/alarm"]
        (1.25, 1.0, None)
    """

    def __init__(self, window: int = 200, alarm_z: float = 2.0) -> None:
        check_int("the audit's window", window, minimum=1)
        if not (math.isfinite(alarm_z) and alarm_z > 0):
            raise ConfigError(f"Expected alarm_z above 0, got {alarm_z!r}.")
        self.window = window
        self.alarm_z = alarm_z
        self._first: list[_Episode] = []
        self._latest: deque[_Episode] = deque(maxlen=2 * window)

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
        """Adds one finished episode; the arguments are those of `EpisodeMetrics.add`.

        An episode with ``critic_said_done=None`` was not judged, and counts only where returns are compared.

        Raises:
            ConfigError: `episode_return` is not finite.
        """
        if not math.isfinite(episode_return):
            raise ConfigError(f"Expected a finite return, got {episode_return!r}.")
        episode = _Episode(float(episode_return), sim_success, critic_said_done)
        if len(self._first) < self.window:
            self._first.append(episode)
        self._latest.append(episode)

    def compute(self) -> dict[str, float | None]:
        """The numbers of `AUDIT_METRIC_NAMES`; None where there is no data, as wherever the simulator is silent."""
        latest = self._windows()[-1]
        judged = [e for e in latest if e.critic_said_done is not None]
        known = [e for e in judged if e.sim_success is not None]
        counts = {
            "critic/right_stops": sum(bool(e.critic_said_done and e.sim_success) for e in known),
            "critic/wrong_stops": sum(bool(e.critic_said_done and not e.sim_success) for e in known),
            "critic/missed_successes": sum(bool(not e.critic_said_done and e.sim_success) for e in known),
            "critic/right_failures": sum(not e.critic_said_done and not e.sim_success for e in known),
        }
        of_success = _mean([e.episode_return for e in latest if e.sim_success is True])
        of_failure = _mean([e.episode_return for e in latest if e.sim_success is False])
        verdicts = [e for e in latest if e.sim_success is not None]
        proxy = _mean([e.episode_return for e in verdicts])
        referee = _mean([float(bool(e.sim_success)) for e in verdicts])
        alarm = self._alarm()
        values: dict[str, float | None] = {
            "critic/done_rate": _mean([float(bool(e.critic_said_done)) for e in judged]),
            **{name: float(count) if known else None for name, count in counts.items()},
            "critic/wrong_stops_per_100": _per_100(counts["critic/wrong_stops"], known),
            "critic/missed_per_100": _per_100(counts["critic/missed_successes"], known),
            "critic/reward_of_success": of_success,
            "critic/reward_of_failure": of_failure,
            "critic/contrast": None
            if of_success is None or of_failure is None or of_failure <= 0
            else of_success / of_failure,
            "critic/proxy_gap": None if proxy is None or referee is None else proxy - referee,
            "critic/alarm": None if alarm is None else float(alarm),
        }
        return {name: values[name] for name in AUDIT_METRIC_NAMES}

    def alarm_text(self) -> str | None:
        """What to log where the alarm is raised: what rose, what fell, since when; None where it is not."""
        *earlier, latest = self._windows()
        for since, before in zip(("the first", "the previous"), earlier):
            if self._has_parted(before, latest):
                (paid, saw), (pays, sees) = _rates(before), _rates(latest)
                return (
                    f"The critic's return rose from {paid:.2f} to {pays:.2f} while the simulator's success fell from "
                    f"{saw:.0%} to {sees:.0%} since {since} {self.window} episodes: the policy learns to please the "
                    "critic. Stop, and raise the threshold, or look at the report card of this critic."
                )
        return None

    def state_dict(self) -> dict[str, Any]:
        """All that was added, as plain lists and dicts, for a checkpoint."""
        return {"first": [asdict(e) for e in self._first], "latest": [asdict(e) for e in self._latest]}

    def load_state_dict(self, state: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Goes on from `state_dict` of an audit with the same window."""
        self._first = [_Episode(**e) for e in state["first"]]
        self._latest = deque((_Episode(**e) for e in state["latest"]), maxlen=2 * self.window)

    def _windows(self) -> tuple[Sequence[_Episode], Sequence[_Episode], Sequence[_Episode]]:
        """The first episodes, those before the latest, and the latest; the first two empty until they are whole."""
        episodes = list(self._latest)
        if len(episodes) < 2 * self.window:
            return [], [], episodes[-self.window :]
        return self._first, episodes[: self.window], episodes[self.window :]

    def _alarm(self) -> bool | None:
        """None until there are two windows with verdicts."""
        *earlier, latest = self._windows()
        windows = [[e for e in window if e.sim_success is not None] for window in (*earlier, latest)]
        return self.alarm_text() is not None if all(windows) else None

    def _has_parted(self, before: Sequence[_Episode], latest: Sequence[_Episode]) -> bool:
        before = [e for e in before if e.sim_success is not None]
        latest = [e for e in latest if e.sim_success is not None]
        if not before or not latest:
            return False
        rise = _change([e.episode_return for e in before], [e.episode_return for e in latest])
        fall = _change(
            [float(bool(e.sim_success)) for e in before], [float(bool(e.sim_success)) for e in latest]
        )
        return rise >= self.alarm_z and -fall >= self.alarm_z


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _per_100(count: int, episodes: Sequence[_Episode]) -> float | None:
    return 100.0 * count / len(episodes) if episodes else None


def _rates(episodes: Sequence[_Episode]) -> tuple[float, float]:
    """Mean return and success rate of episodes with a verdict, of which there are some."""
    known = [e for e in episodes if e.sim_success is not None]
    return (
        math.fsum(e.episode_return for e in known) / len(known),
        sum(bool(e.sim_success) for e in known) / len(known),
    )


def _change(before: Sequence[float], after: Sequence[float]) -> float:
    """Change of the mean in standard errors; infinite where neither side varies and the means differ."""
    means, squares = [], 0.0
    for values in (before, after):
        mean = math.fsum(values) / len(values)
        squares += math.fsum((v - mean) ** 2 for v in values) / len(values) ** 2
        means.append(mean)
    difference = means[1] - means[0]
    if squares == 0.0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / math.sqrt(squares)
