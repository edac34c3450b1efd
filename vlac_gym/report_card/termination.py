"""Stopping episodes online: what a threshold, patience and a minimum step do to whole episodes.

`StopRule`, `Checks` (one episode's done checks), `Stop` (what the rule makes of them), `apply_rule`,
`termination_metrics`, `episode_fpr_if_independent`, `lag_one_autocorrelation`.
"""

__all__ = [
    "Checks",
    "Stop",
    "StopRule",
    "apply_rule",
    "done_runs",
    "episode_fpr_if_independent",
    "lag_one_autocorrelation",
    "stop_step",
    "termination_metrics",
]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlac_gym.report_card.statistics import Array, Estimate, rate, refused


@dataclass(frozen=True)
class StopRule:
    """When the critic ends an episode: `patience` consecutive checks at or above `threshold`.

    The meaning is that of `done_threshold`, `done_patience` and `min_steps` of `vlac_gym.rule.reward.TrainingRule`:
    checks before `min_steps` count towards the patience, but can't stop.
    """

    threshold: float
    patience: int = 1
    min_steps: int = 0


@dataclass(frozen=True)
class Checks:
    """One episode's done checks.

    Attributes:
        steps: int (Q,), env step of each check, rising, all >= 1.
        probs: float (Q,), the critic's `success_prob` at each; NaN where it gave no usable answer.
        success: bool (T + 1,), the simulator's verdict at every step; index 0 is the reset.
        cluster: Which task the episode is of.
    """

    steps: NDArray[np.int64]
    probs: Array
    success: NDArray[np.bool_]
    cluster: str = ""

    @property
    def first_success_step(self) -> int | None:
        """First step with simulator success, None if there is none."""
        return int(np.argmax(self.success)) if self.success.any() else None

    @property
    def num_steps(self) -> int:
        """Env steps of the recording."""
        return len(self.success) - 1


@dataclass(frozen=True)
class Stop:
    """What a rule makes of one episode.

    Attributes:
        step: Step at which the critic stops it, None if it never does.
        first_success_step: As in `Checks`.
        succeeds_at_stop: Simulator's verdict at `step`; None without a stop.
        checks_before: Checks made while the episode ran and the simulator had not yet seen success.
        num_steps: Env steps of the recording.
    """

    step: int | None
    first_success_step: int | None
    succeeds_at_stop: bool | None
    checks_before: int
    num_steps: int

    @property
    def is_false(self) -> bool:
        """Stopped before the simulator ever saw success."""
        return self.step is not None and (
            self.first_success_step is None or self.step < self.first_success_step
        )

    @property
    def delay_steps(self) -> int | None:
        """Steps from first success to the stop, None for false stops and where one of the two is missing."""
        if self.step is None or self.first_success_step is None or self.is_false:
            return None
        return self.step - self.first_success_step


def apply_rule(checks: Checks, rule: StopRule) -> Stop:
    """Finds where the rule stops an episode."""
    step = stop_step(checks.steps, done_runs(checks.probs, rule.threshold), rule)
    first = checks.first_success_step
    until = min(s for s in (step, None if first is None else first - 1, checks.num_steps) if s is not None)
    return Stop(
        step=step,
        first_success_step=first,
        succeeds_at_stop=None if step is None else bool(checks.success[step]),
        checks_before=int(np.sum(checks.steps <= until)),
        num_steps=checks.num_steps,
    )


def done_runs(probs: Array, threshold: float) -> NDArray[np.int64]:
    """How many done checks in a row end at each check; float comparison in float32, as the wrapper does."""
    is_done = probs.astype(np.float32) >= np.float32(threshold)
    position = np.arange(1, is_done.size + 1)
    return position - np.maximum.accumulate(np.where(is_done, 0, position))


def stop_step(steps: NDArray[np.int64], runs: NDArray[np.int64], rule: StopRule) -> int | None:
    """First step at which `done_runs` (at the rule's threshold) reach the patience, None if none does."""
    may_stop = (runs >= rule.patience) & (steps >= rule.min_steps)
    first = int(may_stop.argmax()) if may_stop.size else 0
    return int(steps[first]) if may_stop.size and may_stop[first] else None


def termination_metrics(stops: Sequence[Stop]) -> dict[str, Estimate]:
    """How the rule would have ended these recordings.

    - `false_stop_rate`: stopped before success / all stopped episodes;
    - `false_positive_rate`: stopped / episodes in which the simulator never sees success;
    - `premature_stop_rate`: stopped before success / episodes that do succeed later (recorded past the stop);
    - `miss_rate`: never stopped / episodes that succeed;
    - `success_at_stop`: the simulator agrees at the very step of the stop / stopped episodes;
    - `f1`: of the episode's verdict, where a true positive is a stop at or after first success;
    - `hazard_per_1000_checks`: false stops per 1,000 checks made before success;
    - `delay_steps_median`, `delay_steps_p90`: env steps from first success to the stop;
    - `wasted_steps_mean`: env steps run on after first success, stopped or not.
    """
    stopped = [stop for stop in stops if stop.step is not None]
    succeeding = [stop for stop in stops if stop.first_success_step is not None]
    failing = [stop for stop in stops if stop.first_success_step is None]
    false = [stop for stop in stopped if stop.is_false]
    true = len(stopped) - len(false)
    missed = sum(stop.step is None for stop in succeeding)
    premature = sum(stop.is_false for stop in succeeding)
    errors = len(false) + missed + premature
    delays = [float(stop.delay_steps) for stop in stops if stop.delay_steps is not None]
    wasted = [
        float((stop.num_steps if stop.step is None else stop.step) - (stop.first_success_step or 0))
        for stop in succeeding
        if not stop.is_false
    ]
    checks = sum(stop.checks_before for stop in stops)
    no_delay = "no episode is stopped after success"
    return {
        "false_stop_rate": rate(len(false), len(stopped), of="stopped episodes"),
        "false_positive_rate": rate(
            sum(s.step is not None for s in failing), len(failing), of="failed episodes"
        ),
        "premature_stop_rate": rate(premature, len(succeeding), of="successful episodes"),
        "miss_rate": rate(missed, len(succeeding), of="successful episodes"),
        "success_at_stop": rate(
            sum(bool(s.succeeds_at_stop) for s in stopped), len(stopped), of="stopped episodes"
        ),
        "f1": Estimate(2 * true / (2 * true + errors), n=len(stops))
        if succeeding
        else refused("there are no successful episodes", len(stops)),
        "hazard_per_1000_checks": Estimate(1000 * len(false) / checks, n=checks)
        if checks
        else refused("no check was made before success"),
        "delay_steps_median": _quantile(delays, 0.5, no_delay),
        "delay_steps_p90": _quantile(delays, 0.9, no_delay),
        "wasted_steps_mean": Estimate(float(np.mean(wasted)), n=len(wasted))
        if wasted
        else refused("no successful episode runs past success"),
    }


def episode_fpr_if_independent(check_fpr: float, checks: int, patience: int = 1) -> float:
    """Chance that a failing episode is stopped if every check errs on its own with `check_fpr`.

    Probability of a run of `patience` errors within `checks` tries, by recursion over the run length;
    `1 - (1 - f)^n` for a patience of 1. Measured rates differ where errors come in bursts.
    """
    state = np.zeros(patience)
    state[0], stopped = 1.0, 0.0
    for _ in range(checks):
        stopped += state[-1] * check_fpr
        grown = np.concatenate([[state.sum() * (1 - check_fpr)], state[:-1] * check_fpr])
        state = grown
    return float(stopped)


def lag_one_autocorrelation(series: Sequence[ArrayLike]) -> float | None:
    """Correlation of neighbouring values within series, pooled over them; None if they do not vary."""
    pairs = [np.stack([a[:-1], a[1:]]) for a in (np.asarray(s, np.float64) for s in series) if a.size > 1]
    if not pairs:
        return None
    before, after = np.concatenate(pairs, axis=1)
    spread = float(before.std() * after.std())
    return float(np.mean((before - before.mean()) * (after - after.mean())) / spread) if spread > 0 else None


def _quantile(values: Sequence[float], q: float, reason: str) -> Estimate:
    return Estimate(float(np.quantile(values, q)), n=len(values)) if values else refused(reason)
