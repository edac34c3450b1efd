"""Says in five lines what a run's summary means: `read_summary`, `is_paid_wrongly`."""

__all__ = ["is_paid_wrongly", "read_summary"]

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vlac_gym.reporting.trace import PRIVILEGED_NOTE

_HALF = 0.5
"""Of the return of a success; a failure that is paid more, or a success that is paid less, teaches the wrong thing."""


def read_summary(summary: Mapping[str, Any]) -> list[str]:
    """Turns a run's summary into five sentences: what ran, reward, simulator, critic, and what to make of it.

    Args:
        summary: Content of `summary.json` (see `vlac_gym.reporting.run_folder`).
    """
    episodes: Sequence[Mapping[str, Any]] = summary["episodes"]
    if not episodes:
        return ["No episode was finished, so there is nothing to read.", *_lost(summary)]
    is_eval = all(e["mode"] == "eval" for e in episodes)
    return [
        _what_ran(summary, episodes),
        _reward_line(episodes, is_eval=is_eval),
        _simulator_line(episodes),
        _critic_line(summary, episodes, is_eval=is_eval),
        _verdict(episodes, is_eval=is_eval),
    ]


def _what_ran(summary: Mapping[str, Any], episodes: Sequence[Mapping[str, Any]]) -> str:
    steps = sum(e["steps"] for e in episodes)
    wall_s = sum(e["wall_s"] for e in episodes)
    first = episodes[0]
    return (
        f"Ran {_count(len(episodes), 'episode')} of {first['task_suite']} task {first['task_id']} "
        f"({first['task']}) with policy {summary['run']['policy']} in {first['mode']} mode: "
        f"{_count(steps, 'step')} in {wall_s:.1f} s."
    )


def _reward_line(episodes: Sequence[Mapping[str, Any]], *, is_eval: bool) -> str:
    mean = sum(e["return"] for e in episodes) / len(episodes)
    if is_eval:
        return f"Reward: the simulator's own, untouched; mean return {mean:.2f}."
    stops = Counter("done" if e["critic_done_step"] is not None else "limit" for e in episodes)
    failed = sum(e["critic"]["stopped_by"] == "critic_error" for e in episodes)
    endings = [
        f"{stops['done']} ended because the critic said done",
        f"{stops['limit'] - failed} at the limit",
    ]
    if failed:
        endings.append(f"{failed} because the critic failed")
    paid = _paid_by_success(episodes)
    shares = f"Of {_count(len(episodes), 'episode')}, {', '.join(endings)}."
    return f"Reward: the critic's; mean return {mean:.2f}{paid}. {shares}"


def _paid_by_success(episodes: Sequence[Mapping[str, Any]]) -> str:
    failed = [e["return"] for e in episodes if not e["success"]]
    if not failed:
        return ""
    mean = sum(failed) / len(failed)
    most = f", at most {max(failed):.2f}" if len(failed) > 1 else ""
    return f"; {_count(len(failed), 'episode')} without success paid {mean:.2f}{' on average' if most else ''}{most}"


def is_paid_wrongly(episode: Mapping[str, Any]) -> bool:
    """Whether the critic paid a failure half of a success or more, or a success less than that."""
    return bool(episode["mode"] != "eval" and (episode["return"] >= _HALF) != episode["success"])


def _simulator_line(episodes: Sequence[Mapping[str, Any]]) -> str:
    steps = [str(e["sim_success_step"]) for e in episodes if e["success"]]
    line = f"Simulator: success in {len(steps)} of {_count(len(episodes), 'episode')}"
    if steps:
        line += f", first seen at step {', '.join(steps[:8])}{' …' if len(steps) > 8 else ''}"
    return line + "."


def _critic_line(summary: Mapping[str, Any], episodes: Sequence[Mapping[str, Any]], *, is_eval: bool) -> str:
    critic = summary["critic"]
    name = critic["title"] + (f" ({PRIVILEGED_NOTE})" if critic["is_privileged"] else "")
    if is_eval:
        return f"Critic {name}: received no call, as eval mode promises."
    calls = sum(e["critic"]["calls"] for e in episodes)
    failures = int(summary["metrics"]["critic/failures"])
    latency = summary["metrics"]["critic/latency_ms"]
    speed = "" if latency is None else f", {latency:.1f} ms per check"
    return f"Critic {name}: {_count(calls, 'call')}{speed}, {_count(failures, 'failure')}."


def _lost(summary: Mapping[str, Any]) -> list[str]:
    failures = int(summary["metrics"]["critic/failures"])
    return [f"Critic {summary['critic']['title']}: {_count(failures, 'failure')}."] if failures else []


def _verdict(episodes: Sequence[Mapping[str, Any]], *, is_eval: bool) -> str:
    if is_eval:
        solved = sum(e["success"] for e in episodes)
        return f"Reading: the policy solved {solved} of {len(episodes)}, judged by the simulator alone."
    wrong = [e["episode"] for e in episodes if e["critic_done_step"] is not None and not e["success"]]
    missed = [e["episode"] for e in episodes if e["critic_done_step"] is None and e["success"]]
    paid_wrongly = [e for e in episodes if is_paid_wrongly(e) and e["episode"] not in [*wrong, *missed]]
    lured = [e["episode"] for e in paid_wrongly if not e["success"]]
    starved = [e["episode"] for e in paid_wrongly if e["success"]]
    parts = [
        f"{what} {_episodes(which)}"
        for what, which in (
            ("the critic said done without success in", wrong),
            ("the critic missed the success in", missed),
            ("it paid half of a success or more without one in", lured),
            ("it paid less than half for a success in", starved),
        )
        if which
    ]
    if not parts:
        return "Reading: critic and simulator agree about every episode, in stops and in reward."
    return f"Reading: critic and simulator disagree: {'; '.join(parts)}; look at the videos."


def _episodes(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return f"episode{'' if len(numbers) == 1 else 's'} {shown}" + (" …" if len(numbers) > 8 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
