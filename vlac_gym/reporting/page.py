"""Renders a run's summary as one offline web page: `render_page`.

The page needs no network and no script; videos and plots are referred to by relative names.
"""

__all__ = ["render_page"]

from collections.abc import Mapping
from html import escape
from typing import Any

from vlac_gym.metrics import METRIC_NAMES
from vlac_gym.reporting.reading import is_paid_wrongly, read_summary
from vlac_gym.reporting.trace import PRIVILEGED_NOTE

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f8fafc; --ink: #111827; --muted: #6b7280;
  --line: #e5e7eb; --good: #15803d; --bad: #b91c1c; --warn-paper: #fef3c7; --warn-ink: #78350f; }
@media (prefers-color-scheme: dark) { :root { --paper: #0f1419; --card: #171d24; --ink: #e5e7eb; --muted: #9ca3af;
  --line: #2b333d; --good: #4ade80; --bad: #f87171; --warn-paper: #3b2f10; --warn-ink: #fde68a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; } h2 { font-size: 17px; margin: 0; }
p { margin: 0; } .muted { color: var(--muted); } section { margin-top: 28px; }
.note { margin-top: 16px; padding: 10px 14px; border-radius: 8px;
  background: var(--warn-paper); color: var(--warn-ink); }
.reading { margin: 16px 0 0; padding-left: 20px; } .reading li { margin: 2px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(196px, 1fr)); gap: 12px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 21px; font-variant-numeric: tabular-nums; } .tile span { font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-size: 13px; font-weight: 600; color: var(--muted); }
.episode { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px; }
.episode + .episode { margin-top: 20px; } .episode p { margin: 2px 0 12px; }
video, img { display: block; width: 100%; height: auto; border-radius: 6px; background: #ffffff; margin-top: 10px; }
.good { color: var(--good); } .bad { color: var(--bad); } a { color: inherit; }
summary { cursor: pointer; margin-top: 12px; } pre { overflow-x: auto; font-size: 12.5px; }
"""


def render_page(summary: Mapping[str, Any]) -> str:
    """HTML of the page for one run.

    Args:
        summary: Content of `summary.json`; every text in it is escaped.
    """
    run = summary["run"]
    title = f"{run['task_suite']} task {run['task_id']}, {run['mode']} mode"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="muted">{escape(_subtitle(summary))}</p>',
        _notes(summary),
        _reading(summary),
        _tiles(summary),
        _table(summary),
        *(_episode(summary, episode) for episode in summary["episodes"]),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · vlac-gym</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _subtitle(summary: Mapping[str, Any]) -> str:
    run = summary["run"]
    done = f"{len(summary['episodes'])} of {run['episodes']} episodes"
    critic = summary["critic"]
    judge = critic["title"]
    if critic["prompt_version"] != "none":
        judge += f", prompts {critic['prompt_version']}"
    return (
        f"{done}, {summary['status']} · policy {run['policy']} · critic {judge}, fingerprint {critic['fingerprint']} · "
        f"seed {run['seed']} · vlac-gym {summary['vlac_gym']}"
    )


def _notes(summary: Mapping[str, Any]) -> str:
    notes = []
    if summary["critic"]["is_privileged"]:
        notes.append(f"The critic {summary['critic']['name']} is {PRIVILEGED_NOTE}.")
    if summary["error"]:
        notes.append(f"The run stopped early: {summary['error']}")
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def _reading(summary: Mapping[str, Any]) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in read_summary(summary))
    return f'<ul class="reading">{lines}</ul>'


def _tiles(summary: Mapping[str, Any]) -> str:
    tiles = [
        f'<div class="tile" title="{escape(METRIC_NAMES[name])}"><b>{_number(value)}</b>'
        f'<span class="muted">{escape(name)}</span></div>'
        for name, value in summary["metrics"].items()
    ]
    return f'<section class="tiles">{"".join(tiles)}</section>'


def _table(summary: Mapping[str, Any]) -> str:
    head = "".join(
        f"<th>{name}</th>"
        for name in ("episode", "init state", "steps", "ended", "return", "critic done", "simulator", "wall")
    )
    rows = []
    for e in summary["episodes"]:
        number = e["episode"]
        cells = (
            f'<a href="#episode-{number}">{number}</a>',
            "–" if e["init_state_id"] is None else e["init_state_id"],
            e["steps"],
            "terminated" if e["terminated"] else "truncated",
            _paid(e),
            _critic_verdict(e),
            _simulator_verdict(e),
            f"{e['wall_s']:.1f} s",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<section class="scroll">{table}</section>'


def _episode(summary: Mapping[str, Any], episode: Mapping[str, Any]) -> str:
    number = episode["episode"]
    media = []
    if episode["video"]:
        name = escape(episode["video"])
        media.append(f'<video src="{name}" controls loop muted playsinline preload="auto"></video>')
    if episode["plot"]:
        name = escape(episode["plot"])
        media.append(f'<img src="{name}" alt="Curves of episode {number}" loading="lazy">')
    critic = episode["critic"]
    who = summary["critic"]["title"] + (f" ({PRIVILEGED_NOTE})" if critic["is_privileged"] else "")
    values = ", ".join(
        f"{at}: {value:.3f}" for at, value in zip(critic["value_frame_steps"], critic["values"])
    )
    origin = {"reward": "paid as reward", "plot": "asked for after the episode; not in the reward"}
    asked_for = origin.get(critic["values_for"], "not asked")
    kept = ""
    if episode.get("frames"):
        name = escape(episode["frames"])
        kept = f'<p class="muted">The frames as they were, without loss: <a href="{name}">{name}</a></p>'
    details = f"<pre>critic  {escape(who)}\nvalues  {escape(asked_for)}\n{values}</pre>"
    return (
        f'<section class="episode" id="episode-{number}"><h2>Episode {number}: {escape(episode["task"])}</h2>'
        f"<p>{_critic_verdict(episode)} · {_simulator_verdict(episode)}</p>{''.join(media)}"
        f"{kept}<details><summary>Critic's values</summary>{details}</details></section>"
    )


def _paid(episode: Mapping[str, Any]) -> str:
    text = f"{episode['return']:.3f}"
    return f'<span class="bad">{text}</span>' if is_paid_wrongly(episode) else text


def _critic_verdict(episode: Mapping[str, Any]) -> str:
    if episode["mode"] == "eval":
        return "critic not asked"
    step = episode["critic_done_step"]
    if step is None:
        return "critic: not done"
    kind = "good" if episode["success"] else "bad"
    return f'<span class="{kind}">critic: done at {step}</span>'


def _simulator_verdict(episode: Mapping[str, Any]) -> str:
    if not episode["success"]:
        return '<span class="bad">simulator: no success</span>'
    return f'<span class="good">simulator: success at {episode["sim_success_step"]}</span>'


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
