"""The card as one offline web page: `render_card`, `write_card`. No network, no script; plots are inside it."""

__all__ = ["render_card", "write_card"]

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.files.atomic import write_json, write_text
from vlac_gym.report_card import plots
from vlac_gym.report_card.card import ReportCard
from vlac_gym.report_card.names import HEADLINES, METRICS, SECTIONS, label_of
from vlac_gym.report_card.termination import StopRule
from vlac_gym.reporting.rendering import render_template


def render_card(card: ReportCard) -> str:
    """HTML of the page; every text in the card is escaped.

    Raises:
        DependencyNotInstalled: matplotlib or jinja2 is missing.
    """
    content = card.content
    return render_template(
        "card.html",
        content=content,
        subtitle=_subtitle(content),
        notes=_notes(content),
        advice=_advice(content),
        headlines=HEADLINES,
        mistakes=card.mistakes,
        wrong_stops=() if card.attacked is None else card.attacked.worst,
        figures=_figures(card),
        sections=SECTIONS,
        value=_value,
        interval=_interval,
        score=_score,
        base64=lambda data: base64.b64encode(data).decode(),
        label_of=label_of,
        meaning_of=lambda name: METRICS.get(name, ("", ""))[1],
    )


def write_card(card: ReportCard, out: Path) -> tuple[Path, Path]:
    """Writes `card.json`, then `index.html`. Returns their paths.

    Raises:
        DependencyNotInstalled: matplotlib or jinja2 is missing; what was measured is written.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "card.json", card.content)
    write_text(out / "index.html", render_card(card))
    return out / "card.json", out / "index.html"


def _subtitle(content: Mapping[str, Any]) -> str:
    data, critic, config = content["dataset"], content["critic"], content["config"]
    return (
        f"{data['episodes']} episodes, {data['successes']} reach success and {data['undone']} of them lose it again · "
        f"model {critic['model']} on {critic['device']} · checks every {config['check_interval']} step(s) or recorded "
        f"frame, values every {config['value_stride']} · vlac-gym {content['vlac_gym']}"
    )


def _notes(content: Mapping[str, Any]) -> list[str]:
    notes = []
    if content["critic"]["is_privileged"]:
        notes.append("This critic is privileged: it reads the simulator's state, not only pictures.")
    used = content["references"]
    if used is not None:
        without = f"; for {used['judged_without']} there was none" if used["judged_without"] else ""
        notes.append(
            f"One-shot: values and pairs of {used['judged_with']} episodes were judged with {used['frames']} frames "
            f"of a success of the same task and another start{without}."
        )
    if content["unknown_to_the_critic"]:
        notes.append(
            f"Measured beyond what this critic knows: {'; '.join(content['unknown_to_the_critic'])}."
        )
    if content["calibration_reason"]:
        notes.append(f"Thresholds: {content['calibration_reason']}.")
    return notes


def _advice(content: Mapping[str, Any]) -> dict[str, str] | None:
    rule = content["calibration"]
    if rule is None:
        return None
    settings = f"done_threshold={rule['done_threshold']:g}, done_patience={rule['done_patience']}, "
    settings += f"done_interval={rule['done_interval']}, min_steps={rule['min_steps']}"
    measured = (
        f"With them {rule['false_positive_rate']:.1%} of the failed episodes are stopped as done (budget "
        f"{rule['false_stop_budget']:.1%}) and {rule['miss_rate']:.1%} of the successful ones are missed, on the "
        "episodes that they were chosen on."
    )
    kind, verdict = _budget_verdict(content["headline"]["false_positive_rate"], rule["false_stop_budget"])
    held_out = content["held_out_tasks"]
    honest = "Nothing can be said about tasks that the choice did not see: too few tasks have both outcomes"
    if held_out:
        honest = "Chosen without a task and measured on it, over all tasks: " + ", ".join(
            f"{METRICS[name][0].lower()} {_value(estimate)} ({_interval(estimate) or estimate['reason']})"
            for name, estimate in held_out.items()
        )
    return {"kind": kind, "settings": settings, "measured": measured, "verdict": verdict, "held_out": honest}


def _budget_verdict(false_stops: Mapping[str, Any], budget: float) -> tuple[str, str]:
    """Whether the interval of the false stops lies within the budget: a class of the page, and a sentence.

    The rate alone says little: 0 of 10 failed episodes leaves room for 28 %.
    """
    low, high = false_stops["low"], false_stops["high"]
    if high is None or low is None:
        return "open", "There are no failed episodes to judge the rule by."
    interval = f"the 95 % interval reaches from {low:.1%} to {high:.1%}"
    if high <= budget:
        return "proven", f"False stops are within the budget: {interval}."
    if low > budget:
        return "missed", f"False stops are above the budget: {interval}."
    return (
        "open",
        f"Too few failures ({false_stops['n']}) to tell whether false stops are within the budget: {interval}.",
    )


def _figures(card: ReportCard) -> list[tuple[str, str, str]]:
    """Class, caption and drawing of each."""
    usable = [e for e in card.judged if np.isfinite(e.checks.probs).any()]
    if not usable:
        return _searches(card)
    scores = np.concatenate([e.checks.probs for e in usable])
    success = np.concatenate([e.checks.success[e.checks.steps] for e in usable])
    success, scores = success[np.isfinite(scores)], scores[np.isfinite(scores)]
    rule = card.content["calibration"]
    figures = [
        (
            "wide",
            "Scores of all checked frames by the simulator's verdict, and the ROC curve",
            plots.plot_scores(scores, success),
        ),
        (
            "wide",
            "Value curves by outcome; dashed: the simulator's goal progress",
            plots.plot_values(card.judged),
        ),
        (
            "",
            "Calibration of scores: on the diagonal a score is a probability",
            plots.plot_reliability(scores, success),
        ),
    ]
    if rule is not None:
        chosen = StopRule(rule["done_threshold"], rule["done_patience"], rule["min_steps"])
        trade_off = plots.plot_trade_off(card.points, chosen, rule["false_stop_budget"])
        figures.append(("", "False stops against missed successes; each dot is a threshold", trade_off))
        delays = plots.plot_delays(card.judged, chosen)
        if delays is not None:
            figures.append(("", "Delay of the recommended rule", delays))
    if card.timed:
        caption = "Latency (median; the bar ends at the 95th percentile) and throughput on new frames, by batch size"
        figures.append(("wide", caption, plots.plot_batches(card.timed)))
    return figures + _searches(card)


def _searches(card: ReportCard) -> list[tuple[str, str, str]]:
    if card.attacked is None or not card.attacked.curves:
        return []
    curves = [(label_of(curve.name), curve.points) for curve in card.attacked.curves]
    caption = "Under optimisation: wrong stops and what failures are paid, over the episodes of a search"
    return [("wide", caption, plots.plot_searches(curves))]


def _score(success_prob: float | None) -> str:
    return "–" if success_prob is None or not np.isfinite(success_prob) else f"{success_prob:.2f}"


def _value(estimate: Mapping[str, Any]) -> str:
    return "–" if estimate["value"] is None else _number(estimate, "value")


def _interval(estimate: Mapping[str, Any]) -> str:
    if estimate["low"] is None or estimate["value"] is None:
        return ""
    return f"{_number(estimate, 'low')} … {_number(estimate, 'high')}"


def _number(estimate: Mapping[str, Any], end: str) -> str:
    value: float = estimate[end]
    if estimate["interval"] == "wilson":  # a share of episodes, frames or checks
        return f"{value:.1%}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
