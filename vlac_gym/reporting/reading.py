"""Says in five lines what a run's summary means: `read_summary`."""

__all__ = ["read_summary"]

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vlac_gym.reporting.trace import PRIVILEGED_NOTE


def read_summary(summary: Mapping[str, Any]) -> list[str]:
    """Turns a run's summary into five sentences: what ran, reward, simulator, critic, and what to make of it.

    Args:
        summary: Content of `summary.json` (see `vlac_gym.reporting.run_folder`).
    """
    episodes: Sequence[Mapping[str, Any]] = summary["episodes"]
    if not episodes:
        return ["No episode was finished, so there is nothing to read."]
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
    return f"Reward: the critic's; mean return {mean:.2f}. Of {_count(len(episodes), 'episode')}, {', '.join(endings)}."


def _simulator_line(episodes: Sequence[Mapping[str, Any]]) -> str:
    steps = [str(e["sim_success_step"]) for e in episodes if e["success"]]
    line = f"Simulator: success in {len(steps)} of {_count(len(episodes), 'episode')}"
    if steps:
        line += f", first seen at step {', '.join(steps[:8])}{' …' if len(steps) > 8 else ''}"
    return line + "."


def _critic_line(summary: Mapping[str, Any], episodes: Sequence[Mapping[str, Any]], *, is_eval: bool) -> str:
    critic = summary["critic"]
    name = f"{critic['name']} ({PRIVILEGED_NOTE})" if critic["is_privileged"] else critic["name"]
    if is_eval:
        return f"Critic {name}: received no call, as eval mode promises."
    calls = sum(e["critic"]["calls"] for e in episodes)
    failures = sum(e["critic"]["failures"] for e in episodes)
    latency = summary["metrics"]["critic/latency_ms"]
    speed = "" if latency is None else f", {latency:.1f} ms per check"
    return f"Critic {name}: {_count(calls, 'call')}{speed}, {_count(failures, 'failure')}."


def _verdict(episodes: Sequence[Mapping[str, Any]], *, is_eval: bool) -> str:
    if is_eval:
        solved = sum(e["success"] for e in episodes)
        return f"Reading: the policy solved {solved} of {len(episodes)}, judged by the simulator alone."
    wrong = [e["episode"] for e in episodes if e["critic_done_step"] is not None and not e["success"]]
    missed = [e["episode"] for e in episodes if e["critic_done_step"] is None and e["success"]]
    if not wrong and not missed:
        return "Reading: critic and simulator agree about every episode."
    parts = []
    if wrong:
        parts.append(f"the critic said done without success in {_episodes(wrong)}")
    if missed:
        parts.append(f"the critic missed the success in {_episodes(missed)}")
    return f"Reading: critic and simulator disagree: {' and '.join(parts)}; look at the videos."


def _episodes(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return f"episode{'' if len(numbers) == 1 else 's'} {shown}" + (" …" if len(numbers) > 8 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
