"""The card as one offline web page: `render_card`, `write_card`. No network, no script; plots are inside it."""

__all__ = ["render_card", "write_card"]

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.report_card import plots
from vlac_gym.report_card.card import ReportCard
from vlac_gym.report_card.mistakes import Mistake, StripFrame
from vlac_gym.report_card.names import HEADLINES, METRICS, SECTIONS, label_of
from vlac_gym.report_card.termination import StopRule
from vlac_gym.reporting.files import write_json, write_text

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f8fafc; --ink: #111827; --muted: #6b7280;
  --line: #e5e7eb; --good: #15803d; --bad: #b91c1c; --warn-paper: #fef3c7; --warn-ink: #78350f; }
@media (prefers-color-scheme: dark) { :root { --paper: #0f1419; --card: #171d24; --ink: #e5e7eb; --muted: #9ca3af;
  --line: #2b333d; --good: #4ade80; --bad: #f87171; --warn-paper: #3b2f10; --warn-ink: #fde68a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 4px; } h3 { font-size: 14px; margin: 18px 0 2px; } p { margin: 0 0 8px; }
.muted { color: var(--muted); }
.note { margin-top: 14px; padding: 10px 14px; border-radius: 8px; background: var(--warn-paper);
  color: var(--warn-ink); }
.advice { margin-top: 14px; padding: 12px 16px; border: 1px solid var(--line); border-left: 4px solid var(--line);
  border-radius: 8px; background: var(--card); } .advice p { margin: 4px 0 0; }
.advice.proven { border-left-color: var(--good); } .advice.open { border-left-color: #f59e0b; }
.advice.missed { border-left-color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(232px, 1fr)); gap: 12px; margin-top: 18px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: 13px; line-height: 1.4; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 14px; margin: 10px 0; }
.plots .wide { grid-column: 1 / -1; } figure { margin: 0; }
figure.plot { background: #ffffff; border: 1px solid var(--line); border-radius: 8px; padding: 8px; color: #111827; }
figure.plot svg { display: block; width: 100%; height: auto; }
figcaption { font-size: 13px; color: var(--muted); margin: 2px 4px 6px; } figure.plot figcaption { color: #4b5563; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-size: 13px; color: var(--muted); } td.n, th.n { text-align: right; white-space: nowrap; }
td.why { color: var(--muted); font-size: 13.5px; }
.mistake { margin-top: 18px; }
.strip { display: grid; grid-template-columns: repeat(8, minmax(0, 1fr)); gap: 6px; margin-top: 6px; }
.strip img { display: block; width: 100%; height: auto; border-radius: 4px; }
.strip div { font-size: 12px; line-height: 1.35; } .strip .event img { outline: 3px solid var(--bad); }
@media (max-width: 700px) { .strip { grid-template-columns: repeat(4, minmax(0, 1fr)); } }
.good { color: var(--good); } .bad { color: var(--bad); } code { font-size: 13.5px; overflow-wrap: anywhere; }
"""


def render_card(card: ReportCard) -> str:
    """HTML of the page; every text in the card is escaped.

    Raises:
        DependencyNotInstalled: matplotlib is missing.
    """
    content = card.content
    title = f"Report card: {content['critic']['spec']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="muted">{escape(_subtitle(content))}</p>',
        _notes(content),
        _advice(content),
        _tiles(content["headline"]),
        _mistakes(card.mistakes),
        _plots(card),
        "".join(
            _section(letter, name, content["sections"][name]) for letter, name in zip("ABCDEFG", SECTIONS)
        ),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · vlac-gym</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def write_card(card: ReportCard, out: Path) -> tuple[Path, Path]:
    """Writes `card.json`, then `index.html`. Returns their paths.

    Raises:
        DependencyNotInstalled: matplotlib is missing; what was measured is written.
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


def _notes(content: Mapping[str, Any]) -> str:
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
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def _advice(content: Mapping[str, Any]) -> str:
    rule = content["calibration"]
    if rule is None:
        return ""
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
            f"{METRICS[name][0].lower()} {_value(name, estimate)} ({_interval(name, estimate) or estimate['reason']})"
            for name, estimate in held_out.items()
        )
    return (
        f'<div class="advice {kind}"><b>Recommended: <code>{escape(settings)}</code></b><p>{escape(measured)}</p>'
        f"<p>{escape(verdict)}</p>"
        f'<p class="muted">{escape(honest)}. Use them: <code>VLACRewardWrapper(…, calibration="card.json")</code>.'
        "</p></div>"
    )


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


def _tiles(headline: Mapping[str, Any]) -> str:
    tiles = []
    for name, label in HEADLINES.items():
        estimate = headline[name]
        detail = (
            estimate["reason"]
            if estimate["value"] is None
            else f"{_interval(name, estimate)} n = {estimate['n']}"
        )
        tiles.append(
            f'<div class="tile"><b>{_value(name, estimate)}</b><span>{escape(label)}</span>'
            f'<span class="muted">{escape(detail)}</span></div>'
        )
    return f'<section class="tiles">{"".join(tiles)}</section>'


def _plots(card: ReportCard) -> str:
    usable = [e for e in card.judged if np.isfinite(e.checks.probs).any()]
    if not usable:
        return ""
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
    return (
        '<div class="plots">'
        + "".join(
            f'<figure class="plot {kind}"><figcaption>{escape(caption)}</figcaption>{svg}</figure>'
            for kind, caption, svg in figures
        )
        + "</div>"
    )


def _section(letter: str, name: str, tree: Mapping[str, Any]) -> str:
    title, text = SECTIONS[name]
    rows = "".join(_rows(tree, ()))
    return (
        f"<h2>{letter}. {escape(title)}</h2><p class='muted'>{escape(text)}</p>"
        "<div class='scroll'><table><tr><th>metric</th>"
        f"<th class='n'>value</th><th class='n'>95 % interval</th><th class='n'>n</th><th>meaning</th></tr>{rows}"
        "</table></div>"
    )


def _rows(tree: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    rows = []
    for name, branch in tree.items():
        if "interval" not in branch:
            rows += [f"<tr><th colspan='5'>{escape(label_of(name))}</th></tr>", *_rows(branch, (*path, name))]
            continue
        meaning = METRICS.get(name, ("", "", ""))[1]
        if branch["value"] is None:
            meaning = f"not computed: {branch['reason']}"
        rows.append(
            f"<tr><td>{escape(label_of(name))}</td><td class='n'>{_value(name, branch)}</td>"
            f"<td class='n'>{escape(_interval(name, branch))}</td><td class='n'>{branch['n']}</td>"
            f"<td class='why'>{escape(meaning)}</td></tr>"
        )
    return rows


def _mistakes(mistakes: Sequence[tuple[Mistake, Sequence[StripFrame]]]) -> str:
    intro = "The recommended rule's; the frame with the red edge is where it shows."
    if not mistakes:
        return "<h2>Worst mistakes</h2><p class='muted'>None: no false, late or missed stop in these episodes.</p>"
    parts = []
    for mistake, strip in mistakes:
        pictures = "".join(_picture(frame) for frame in strip)
        parts.append(
            f'<div class="mistake"><b>{escape(mistake.kind)}</b>: {escape(mistake.text)} '
            f'<span class="muted">{escape(mistake.episode_id)}</span><div class="strip">{pictures}</div></div>'
        )
    return f"<h2>Worst mistakes</h2><p class='muted'>{intro}</p>{''.join(parts)}"


def _picture(frame: StripFrame) -> str:
    score = (
        "–"
        if frame.success_prob is None or not np.isfinite(frame.success_prob)
        else f"{frame.success_prob:.2f}"
    )
    truth = '<span class="good">success</span>' if frame.success else '<span class="muted">no success</span>'
    data = base64.b64encode(frame.jpeg).decode()
    return (
        f'<div class="{"event" if frame.is_event else ""}"><img alt="frame at step {frame.step}" '
        f'src="data:image/jpeg;base64,{data}">step {frame.step} · p {score}<br>{truth}</div>'
    )


def _value(name: str, estimate: Mapping[str, Any]) -> str:
    return "–" if estimate["value"] is None else _number(estimate, "value")


def _interval(name: str, estimate: Mapping[str, Any]) -> str:
    if estimate["low"] is None or estimate["value"] is None:
        return ""
    return f"{_number(estimate, 'low')} … {_number(estimate, 'high')}"


def _number(estimate: Mapping[str, Any], end: str) -> str:
    value: float = estimate[end]
    if estimate["interval"] == "wilson":  # a share of episodes, frames or checks
        return f"{value:.1%}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
