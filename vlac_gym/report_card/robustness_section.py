"""The card's section about robustness: other words, other pictures, other views, another task: `robustness_section`."""

__all__ = ["picture_change", "robustness_section"]

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlac_gym.report_card import detection as d
from vlac_gym.report_card.probes import ProbeResults
from vlac_gym.report_card.sections import Section, plain_mean, score_columns
from vlac_gym.report_card.statistics import Estimate, rate, refused

_ONE_VIEW = "only one view is recorded; collect with --cameras agentview wrist agentview@shadow"


def robustness_section(probes: ProbeResults, threshold: float, *, is_privileged: bool) -> Section:
    """The same question in other words, pictures and views, and a question about another task."""
    if is_privileged:
        return {"all": refused("a privileged critic looks at neither pictures nor words")}
    clean, success = score_columns(probes.clean)
    unusable = sum(int(np.isnan(row).sum()) for row in probes.paraphrased)
    wordings = sum(len(row) - 1 for row in probes.paraphrased)
    answered = [row[np.isfinite(row)] for row in probes.paraphrased]
    answered = [row for row in answered if len(row) > 1]
    flips = [bool(np.ptp(_says(row, threshold).astype(int))) for row in answered]
    return {
        "wrong_instruction_false_success": rate(
            int(_says(probes.wrong_task, threshold).sum()),
            len(probes.wrong_task),
            of="successes shown with another task",
        ),
        "paraphrase_flip_rate": rate(sum(flips), len(flips), of="paraphrased episodes"),
        "paraphrase_std": plain_mean(
            [float(row.std()) for row in answered], "no paraphrase got a usable answer"
        ),
        "unusable_paraphrase_answers": rate(unusable, wordings, of="paraphrases"),
        "unchanged": {
            "balanced_accuracy": d.confusion(clean, success, threshold).metrics()["balanced_accuracy"]
        },
        **_compared(probes.changed, threshold),
        "views": _compared(probes.views, threshold) or refused(_why_no_views(probes)),
    }


def picture_change(
    clean: ArrayLike, changed: ArrayLike, success: ArrayLike, threshold: float
) -> dict[str, Estimate]:
    """How verdicts hold when the same moments are shown otherwise.

    Args:
        clean: (N,) scores of the judged pictures.
        changed: (N,) scores of the same moments in the other pictures.
        success: (N,) the simulator's verdicts.
        threshold: From which score on a verdict is "success".

    Returns:
        `flip_rate`, the share of verdicts that differ, and `balanced_accuracy` of the verdicts on `changed`.
    """
    scores, truth = np.asarray(changed, np.float64), np.asarray(success, bool)
    differ = int((_says(scores, threshold) != _says(clean, threshold)).sum())
    return {
        "flip_rate": rate(differ, len(scores), of="changed pictures"),
        "balanced_accuracy": d.confusion(scores, truth, threshold).metrics()["balanced_accuracy"],
    }


def _why_no_views(probes: ProbeResults) -> str:
    if probes.other_views:
        return "no other view got a usable answer"
    return _ONE_VIEW if probes.probed else "no episode was probed"


def _compared(
    rows: Mapping[str, Sequence[tuple[float, float, bool]]], threshold: float
) -> dict[str, Section]:
    """`picture_change` of each name's rows of (score as recorded, changed score, success)."""
    changes: dict[str, Section] = {}
    for name, table in rows.items():
        clean, changed, success = zip(*table)
        changes[name] = picture_change(clean, changed, success, threshold)
    return changes


def _says(scores: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    return np.asarray(scores, np.float32) >= np.float32(threshold)
