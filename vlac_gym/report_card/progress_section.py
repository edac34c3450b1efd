"""The card's section about progress: order, dense truth, consistency and clock controls: `progress_section`."""

__all__ = ["progress_section"]

import numpy as np

from vlac_gym.metrics.progress import accumulate_values, negative_rate, value_order_correlation
from vlac_gym.report_card import progress as p
from vlac_gym.report_card.episode_answers import EpisodeAnswers
from vlac_gym.report_card.probes import ProbeResults
from vlac_gym.report_card.sections import (
    BOTH_CLASSES,
    Bootstrap,
    Judged,
    Section,
    final_values,
    optional,
    plain_mean,
)
from vlac_gym.report_card.statistics import Array, Estimate, kendall_tau_a, rate, refused, spearman


def progress_section(judged: Judged, probes: ProbeResults, boot: Bootstrap) -> Section:
    """Order, dense truth, consistency and clock controls."""
    good = [e for e in judged if e.succeeds]
    bad = [e for e in judged if not e.succeeds]
    known = [e for e in judged if np.isfinite(e.goal_progress).all()]
    successes, failures = _order(good, boot, "successful"), _order(bad, boot, "failed")
    gap = refused(BOTH_CLASSES)
    on_good, on_bad = successes["voc"].value, failures["voc"].value
    if on_good is not None and on_bad is not None:
        gap = Estimate(on_good - on_bad, n=len(judged))
    return {
        "order_successes": successes,
        "order_failures": failures,
        "voc_gap": gap,
        "outcome": {
            "kendall_tau_a": boot(judged, lambda items: kendall_tau_a(*final_values(items))),
            "pairwise_accuracy": boot(judged, _pairwise_accuracy, "no task has both outcomes"),
        },
        "dense_truth": {
            "spearman": boot.mean(known, _dense_spearman, "curves do not vary"),
            "sign_accuracy": boot(known, lambda e: p.sign_accuracy(*_pairs(e)), "nothing ever moves"),
            "regression_recall": boot(
                known, lambda e: p.regression_recall(*_pairs(e)), "nothing is ever lost"
            ),
        },
        "consistency": {
            "antisymmetry_error": boot(judged, _antisymmetry, "there are no pairs"),
            "identity_error": plain_mean(probes.identity, "no identity pair was asked"),
            "path_error": _path_error(probes),
        },
        "clock": {
            "frozen_video_value": plain_mean(probes.frozen, "no frozen video was asked"),
            "shuffled_order": plain_mean(probes.shuffled, "no shuffled video was asked"),
            "idle_final_value": plain_mean(
                [e.final_value for e in judged if e.meta.policy == "zero" and np.isfinite(e.final_value)],
                "there are no idle episodes (policy zero)",
            ),
        },
    }


def _order(judged: Judged, boot: Bootstrap, which: str) -> dict[str, Estimate]:
    none = f"there are no {which} episodes with a curve that varies"
    voc = boot.mean(judged, _voc, none)
    vroc = boot.mean(judged, _vroc, none)
    f1 = None if voc.value is None or vroc.value is None else p.f1_of_correlations(voc.value, vroc.value)
    flat = sum(_voc(e) is None for e in judged)
    return {
        "voc": voc,
        "vroc": vroc,
        "voc_f1": optional(f1, len(judged), "VOC and VROC do not add up to more than 0"),
        "negative_rate": boot(
            judged, lambda items: negative_rate(_until_success(items)), "there are no pairs"
        ),
        "flat_curves": rate(flat, len(judged), of=f"{which} episodes"),
    }


def _voc(e: EpisodeAnswers) -> float | None:
    values = e.values[: e.until_success]
    return value_order_correlation(values) if np.isfinite(values).all() else None


def _vroc(e: EpisodeAnswers) -> float | None:
    backward = e.backward[: e.until_success - 1][::-1]
    if not np.isfinite(backward).all():
        return None
    falling = value_order_correlation(accumulate_values(backward))
    return None if falling is None else -falling


def _until_success(judged: Judged) -> Array:
    pieces = [e.forward[: e.until_success - 1] for e in judged]
    joined = np.concatenate(pieces) if pieces else np.zeros(0)
    return joined[np.isfinite(joined)]


def _pairs(judged: Judged) -> tuple[Array, Array]:
    if not judged:
        return np.zeros(0), np.zeros(0)
    answers = np.concatenate([e.forward for e in judged])
    changes = np.concatenate([e.truth_changes for e in judged])
    usable = np.isfinite(answers)
    return answers[usable], changes[usable]


def _dense_spearman(e: EpisodeAnswers) -> float | None:
    truth = e.goal_progress[e.value_steps]
    return spearman(e.values, truth) if np.isfinite(e.values).all() else None


def _pairwise_accuracy(judged: Judged) -> float | None:
    usable = [e for e in judged if np.isfinite(e.final_value)]
    return p.pairwise_outcome_accuracy(
        [e.final_value for e in usable], [e.ends_in_success for e in usable], [e.task_key for e in usable]
    )


def _antisymmetry(judged: Judged) -> float | None:
    totals = [np.abs(e.forward + e.backward) for e in judged]
    joined = np.concatenate(totals) if totals else np.zeros(0)
    joined = joined[np.isfinite(joined)]
    return float(joined.mean()) if joined.size else None


def _path_error(probes: ProbeResults) -> Estimate:
    first, second, direct = zip(*probes.triples) if probes.triples else ((), (), ())
    return optional(p.path_error(first, second, direct), len(probes.triples), "no triple was asked")
