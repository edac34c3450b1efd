"""The simulator's own signals in `info`: `sim_success`, `reported_success`, `hide_sim_signals`."""

__all__ = ["HIDDEN_KEYS", "hide_sim_signals", "reported_success", "sim_success"]

from collections.abc import Mapping
from typing import Any, SupportsFloat

HIDDEN_KEYS = frozenset({"success", "is_success", "goal_progress", "episode", "final_info", "final_obs"})
"""Keys that trainers read as reward or metric, removed from a training step's `info`.

`episode`, `final_info` and `final_obs` are those of Gymnasium's wrappers that tell how a simulator's episode ended.
"""


def sim_success(info: Mapping[str, Any]) -> bool | None:
    """The simulator's verdict: `success`, else `is_success` (Gymnasium-Robotics); None if it gives none."""
    for key in ("success", "is_success"):
        if key in info:
            return bool(info[key])
    return None


def reported_success(info: Mapping[str, Any]) -> bool | None:
    """The simulator's verdict in the reward wrapper's info, by the name its mode gives it; None if there is none."""
    if "sim_success" in info:
        so_far: bool | None = info["sim_success"]
        return so_far
    return sim_success(info)


def hide_sim_signals(
    info: Mapping[str, Any],
    success_so_far: bool | None,
    env_reward: SupportsFloat | None = None,
    env_terminated: bool | None = None,
) -> dict[str, Any]:
    """A copy of `info` whose simulator signals have names that no trainer takes for reward or metric.

    Args:
        info: The env's `info`; unchanged.
        success_so_far: Goes to `sim_success`.
        env_reward: Goes to `env_reward`; None (reset) leaves it out.
        env_terminated: Goes to `sim_terminated`; None (reset) leaves it out.
    """
    report = {
        key: value
        for key, value in info.items()
        if key not in HIDDEN_KEYS and not (isinstance(value, dict) and _is_statistics(value))
    }
    report["sim_success"] = success_so_far
    if "goal_progress" in info:
        report["sim_goal_progress"] = info["goal_progress"]
    if env_reward is not None:
        report["env_reward"] = float(env_reward)
    if env_terminated is not None:
        report["sim_terminated"] = bool(env_terminated)
    return report


def _is_statistics(value: dict[Any, Any]) -> bool:
    """Is this what Gymnasium's `RecordEpisodeStatistics` adds (under any key): return and length of an episode?"""
    return {"r", "l", "t"} <= set(value)
