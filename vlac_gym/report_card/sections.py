"""The card's sections, each a tree of `Estimate`s: `detection_section`, `termination_section`, `training_section`.

`progress_section`, `robustness_section` and `cost_section` have modules of their own.
"""

__all__ = [
    "BOTH_CLASSES",
    "Bootstrap",
    "Judged",
    "Section",
    "critic_returns",
    "detection_section",
    "final_values",
    "optional",
    "plain_mean",
    "score_columns",
    "termination_section",
    "training_section",
]

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from vlac_gym.report_card import detection as d
from vlac_gym.report_card.episode_answers import EpisodeAnswers
from vlac_gym.report_card.statistics import (
    Array,
    Estimate,
    auroc,
    average_precision,
    cluster_bootstrap,
    rate,
    refused,
    squared_error,
    two_proportion_p_value,
)
from vlac_gym.report_card.termination import (
    StopRule,
    apply_rule,
    episode_fpr_if_independent,
    lag_one_autocorrelation,
    termination_metrics,
)
from vlac_gym.report_card.training_signal import group_fidelity, length_return_correlation

Section: TypeAlias = "Mapping[str, Estimate | Section]"
Judged: TypeAlias = Sequence[EpisodeAnswers]

BOTH_CLASSES = "it needs successes and failures, and one of the two is missing"
_SUCCESS_RATES = (0.05, 0.15, 0.5, 0.9)


@dataclass(frozen=True)
class Bootstrap:
    """How intervals of everything but plain rates are made: whole tasks are drawn."""

    resamples: int = 200
    seed: int = 0

    def __call__(
        self, judged: Judged, metric: Callable[[Judged], float | None], missing: str = BOTH_CLASSES
    ) -> Estimate:
        """The metric with its interval; `missing` says why where it is not defined."""
        if judged and not any(np.isfinite(e.checks.probs).any() for e in judged):
            missing = "the critic gave no usable answer to a done check"
        return cluster_bootstrap(
            judged,
            lambda episode: episode.task_key,
            metric,
            missing=missing,
            resamples=self.resamples,
            seed=self.seed,
        )

    def mean(
        self, judged: Judged, number: Callable[[EpisodeAnswers], float | None], missing: str
    ) -> Estimate:
        """Mean over episodes of a number each has or has not, computed once per episode."""
        numbers = [(episode.task_key, number(episode)) for episode in judged]
        return cluster_bootstrap(
            [(task, value) for task, value in numbers if value is not None],
            lambda pair: pair[0],
            lambda pairs: float(np.mean([value for _, value in pairs])) if pairs else None,
            missing=missing,
            resamples=self.resamples,
            seed=self.seed,
        )


def detection_section(judged: Judged, threshold: float, boot: Bootstrap) -> Section:
    """Success in a frame, in the last frame, and the final value as a score; precision when deployed."""
    at_end = d.confusion(*_last_checks(judged), threshold)
    metrics = at_end.metrics()
    rates = {
        name: metrics[name] for name in ("tpr", "fpr", "precision")
    }  # of episodes: Wilson's interval holds
    tpr, fpr = rates["tpr"].value, rates["fpr"].value
    deployed: dict[str, Estimate] = {}
    for share in _SUCCESS_RATES:
        precision = None if tpr is None or fpr is None else d.deployed_precision(tpr, fpr, share)
        deployed[f"precision_at_success_rate_{share:g}"] = (
            refused(BOTH_CLASSES) if precision is None else Estimate(precision, n=len(judged))
        )
    return {
        "frames": _scores(judged, _checks, threshold, boot),
        "last_frame": {**_scores(judged, _last_checks, threshold, boot), **rates},
        "final_value": {
            "auroc": boot(judged, lambda items: auroc(*final_values(items))),
            "mse": boot(judged, lambda items: squared_error(*final_values(items)), "there is no final value"),
        },
        "deployed": deployed,
        "by_kind": _by_kind(judged, threshold),
    }


def termination_section(judged: Judged, rule: StopRule) -> Section:
    """The rule applied to every episode."""
    checks = [episode.checks for episode in judged]
    stops = [apply_rule(c, rule) for c in checks]
    never = [c for c in checks if not c.success.any()]
    said = [c.probs.astype(np.float32) >= np.float32(rule.threshold) for c in never]
    tail = {
        name: refused("there are no failed episodes") for name in ("check_fpr", "independent_episode_fpr")
    }
    if never:
        flags = np.concatenate(said)
        looks = round(float(np.mean([len(c.probs) for c in never])))
        fpr = float(flags.mean())
        tail["check_fpr"] = Estimate(fpr, n=flags.size)
        tail["independent_episode_fpr"] = Estimate(
            episode_fpr_if_independent(fpr, looks, rule.patience), n=len(never)
        )
    correlation = lag_one_autocorrelation(said)
    stopped = [stop for stop in stops if stop.is_false]
    later = sum(stop.first_success_step is not None for stop in stopped)
    return {
        **termination_metrics(stops),
        **tail,
        "false_stops_that_would_have_succeeded": rate(later, len(stopped), of="false stops"),
        "error_autocorrelation": refused("errors on failed episodes do not vary")
        if correlation is None
        else Estimate(correlation, n=len(never)),
        "success_once": rate(sum(bool(c.success.any()) for c in checks), len(checks), of="episodes"),
        "success_at_end": rate(sum(bool(c.success[-1]) for c in checks), len(checks), of="episodes"),
    }


def training_section(judged: Judged, rule: StopRule, boot: Bootstrap) -> Section:
    """What a policy would be paid; groups are rollouts of one task and start."""
    usable = [e for e in judged if np.isfinite(e.final_value)]
    if not usable:
        return {"all": refused("the critic gave no final value")}
    returns, lengths = critic_returns(usable, rule)
    sim = [float(e.succeeds) for e in usable]
    groups = group_fidelity(returns, sim, [(e.task_key, e.meta.init_state_id) for e in usable])
    by_task: dict[str, list[float]] = {}
    for episode, paid in zip(usable, returns.tolist()):
        by_task.setdefault(episode.task_key, []).append(paid)
    no_mix = "no start has rollouts of both outcomes"
    no_group = "no start has two rollouts"
    bias = length_return_correlation(lengths, returns)
    idle = [r for r, e in zip(returns.tolist(), usable) if e.meta.policy == "zero"]
    failed = [e for e in usable if not e.succeeds]
    missed = [e for e in usable if e.ends_in_success and apply_rule(e.checks, rule).step is None]
    by_kind: dict[str, list[float]] = {}
    for episode in sorted(failed, key=lambda e: e.meta.imperfection):
        by_kind.setdefault(episode.meta.imperfection, []).append(episode.final_value)
    return {
        "group_kendall_tau": optional(groups.kendall_tau, groups.groups, no_mix),
        "advantage_sign_agreement": optional(groups.advantage_sign_agreement, groups.groups, no_mix),
        "pure_noise_groups": optional(groups.noise_groups, groups.groups, no_group),
        "lost_gradient_groups": optional(groups.lost_groups, groups.groups, no_group),
        "length_return_correlation": optional(bias, len(usable), "lengths or returns do not vary"),
        "idle_return": plain_mean(idle, "there are no idle episodes (policy zero)"),
        "final_value_of_failures": _mean_final_value(failed, boot, "there are no failed episodes"),
        "final_value_of_missed_successes": _mean_final_value(
            missed, boot, "the rule stops every episode that ends in success"
        ),
        "final_value_of_failures_by_kind": {kind: episode_mean(own, boot) for kind, own in by_kind.items()},
        "return_by_task": {task: episode_mean(own, boot) for task, own in by_task.items()},
        "return_spread_by_task": {
            task: Estimate(float(np.std(own)), n=len(own)) for task, own in by_task.items()
        },
    }


def _mean_final_value(judged: Judged, boot: Bootstrap, missing: str) -> Estimate:
    return boot.mean(judged, lambda episode: episode.final_value, missing)


def episode_mean(values: Sequence[float], boot: Bootstrap) -> Estimate:
    """Mean of one task's episodes; episodes are drawn for the interval, which stays within the values' range."""
    drawn = cluster_bootstrap(
        list(enumerate(values)),
        lambda pair: str(pair[0]),
        lambda pairs: float(np.mean([value for _, value in pairs])),
        missing="there are no episodes",
        resamples=boot.resamples,
        seed=boot.seed,
    )
    return drawn if drawn.low is None else replace(drawn, interval="bootstrap over episodes")


def critic_returns(judged: Judged, rule: StopRule) -> tuple[Array, Array]:
    """Return (1 if the critic stops it, else the final value) and length in steps of each episode."""
    stops = [apply_rule(episode.checks, rule) for episode in judged]
    returns = [e.final_value if stop.step is None else 1.0 for e, stop in zip(judged, stops)]
    lengths = [stop.num_steps if stop.step is None else stop.step for stop in stops]
    return np.array(returns), np.array(lengths, np.float64)


# Scores and labels.


def _scores(
    judged: Judged, pick: Callable[[Judged], tuple[Array, Array]], threshold: float, boot: Bootstrap
) -> dict[str, Estimate]:
    metrics: dict[str, Callable[[Array, Array], float | None]] = {
        "auroc": auroc,
        "auprc": average_precision,
        "fpr_at_tpr_0.9": lambda s, y: d.fpr_at_tpr(s, y, 0.9),
        "tpr_at_fpr_0.01": lambda s, y: d.tpr_at_fpr(s, y, 0.01),
        "tpr_at_fpr_0.05": lambda s, y: d.tpr_at_fpr(s, y, 0.05),
        "brier": squared_error,
        "calibration_error": d.calibration_error,
    }
    for name in ("tpr", "fpr", "precision", "f1", "balanced_accuracy", "youden_j", "cohen_kappa"):
        metrics[name] = functools.partial(_confusion_metric, name, threshold)
    return {name: boot(judged, functools.partial(_picked, metric, pick)) for name, metric in metrics.items()}


def _confusion_metric(name: str, threshold: float, scores: Array, labels: Array) -> float | None:
    return d.confusion(scores, labels, threshold).scores()[name]


def _picked(
    metric: Callable[[Array, Array], float | None],
    pick: Callable[[Judged], tuple[Array, Array]],
    judged: Judged,
) -> float | None:
    return metric(*pick(judged))


def _checks(judged: Judged) -> tuple[Array, Array]:
    probs = np.concatenate([e.checks.probs for e in judged]) if judged else np.zeros(0)
    success = (
        np.concatenate([e.checks.success[e.checks.steps] for e in judged]) if judged else np.zeros(0, bool)
    )
    usable = np.isfinite(probs)
    return probs[usable], success[usable]


def _last_checks(judged: Judged) -> tuple[Array, Array]:
    return score_columns([(e.checks.probs[-1], e.ends_in_success) for e in judged])


def final_values(judged: Judged) -> tuple[Array, Array]:
    return score_columns([(e.final_value, e.ends_in_success) for e in judged])


def score_columns(rows: Sequence[tuple[float, bool]]) -> tuple[Array, Array]:
    """Scores (N,) and labels (N,) of the rows that have a score."""
    usable = [(score, label) for score, label in rows if np.isfinite(score)]
    return np.array([s for s, _ in usable]), np.array([y for _, y in usable], bool)


def _by_kind(judged: Judged, threshold: float) -> Section:
    """False-positive rate of single-check stops per kind of episode, with the odd kinds tested against the rest.

    Kinds stand for policies: a critic that errs more on some cannot rank them. p-values are Bonferroni-corrected.
    """
    failing: dict[str, list[bool]] = {}
    for e in judged:
        if not e.succeeds:
            is_stopped = apply_rule(e.checks, StopRule(threshold)).step is not None
            failing.setdefault(e.meta.imperfection, []).append(is_stopped)
    total = [stopped for group in failing.values() for stopped in group]
    section: dict[str, Estimate | Section] = {}
    for kind, group in sorted(failing.items()):
        rest = (sum(total) - sum(group), len(total) - len(group))
        p_value = two_proportion_p_value((sum(group), rest[0]), (len(group), rest[1]))
        section[kind] = {
            "false_positive_rate": rate(sum(group), len(group), of="failed episodes"),
            "p_value_against_rest": refused("the rates can't be told apart by a test", len(group))
            if p_value is None
            else Estimate(min(1.0, p_value * len(failing)), n=len(total)),
        }
    return section


def plain_mean(values: Sequence[float], missing: str) -> Estimate:
    return Estimate(float(np.mean(values)), n=len(values)) if values else refused(missing)


def optional(value: float | None, n: int, missing: str) -> Estimate:
    return refused(missing, n) if value is None else Estimate(value, n=n)
