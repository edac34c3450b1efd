"""The running episode of each of RLinf's envs: `EpisodeTally`, `end_flags`, `episode_metrics`. numpy only."""

__all__ = ["EpisodeTally", "end_flags", "episode_metrics"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_env_adapter.common.conversion import chunk_columns
from verl_env_adapter.rlinf.starts import ResetState
from vlac_gym.metrics.critic_counters import CRITIC_FAILOVERS, CRITIC_RETRIES
from vlac_gym.stepping.sim_signals import reported_success
from vlac_gym.types import Mode

_CRITIC_DONE = ("success_prob", "value")


@dataclass
class EpisodeTally:
    """What one env has done since its reset. The critic's and the simulator's words stay apart.

    Attributes:
        start: How it began.
        mode: The wrapper's mode.
        task: The task text.
        commanded_steps: Steps that RLinf's clock counts: those after the end, too.
        executed_steps: Env steps.
        episode_return: Sum of what was paid.
        terminated: Latched until the reset.
        truncated: Latched until the reset.
        critic_done: Did the critic end it as done?
        critic_failed: Was it cut because the critic failed?
        is_lost: Did its simulator or worker process fail?
        sim_success: Has the simulator seen success?
        is_spare: An evaluation that has dealt out all starts leaves this env idle.
    """

    start: ResetState
    mode: Mode
    task: str
    commanded_steps: int = 0
    executed_steps: int = 0
    episode_return: float = 0.0
    terminated: bool = False
    truncated: bool = False
    critic_done: bool = False
    critic_failed: bool = False
    is_lost: bool = False
    sim_success: bool = False
    is_spare: bool = False

    @property
    def is_judged(self) -> bool:
        """Do its rewards say something about the policy, so far?"""
        return not (self.critic_failed or self.is_lost)

    def take(
        self,
        rewards: NDArray[Any],
        *,
        terminated: bool,
        truncated: bool,
        success: bool | None,
        info: Mapping[str, Any],
    ) -> None:
        """Takes what the env said after the executed steps of a chunk.

        Args:
            rewards: One per executed step.
            terminated: Gymnasium's, after the last of them.
            truncated: Likewise.
            success: The simulator's verdict on them; None if it gave none.
            info: The wrapper's, after the last of them; empty for an env that idles.
        """
        critic = info.get("critic", {})
        self.executed_steps += len(rewards)
        self.episode_return += float(np.sum(rewards))
        self.critic_failed |= bool(critic.get("failed", False))
        self.is_lost |= "lost_reason" in info
        self.critic_done |= critic.get("stopped_by") in _CRITIC_DONE
        self.sim_success |= bool(success) or bool(reported_success(info))
        self.terminated, self.truncated = terminated, truncated


def end_flags(
    episodes: Sequence[EpisodeTally],
    executed: Sequence[int],
    num_columns: int,
    *,
    step_limit: int | None,
    in_last_column: bool,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """RLinf's `terminations` and `truncations` of a chunk, both bool (N, T).

    Args:
        episodes: After the chunk.
        executed: Steps of this chunk that each env executed.
        num_columns: T.
        step_limit: Report only that this many steps were commanded (``ignore_terminations``); None reports the
            episodes' ends.
        in_last_column: Report an end in the last column, as RLinf does with ``auto_reset`` or
            ``ignore_terminations``; else from the step that ended the episode on.
    """
    terminations = np.zeros((len(episodes), num_columns), np.bool_)
    truncations = np.zeros_like(terminations)
    for i, episode in enumerate(episodes):
        if episode.is_spare:
            continue
        if step_limit is not None:
            truncations[i, -1] = episode.commanded_steps >= step_limit
        elif in_last_column:
            terminations[i, -1], truncations[i, -1] = episode.terminated, episode.truncated
        else:
            columns = chunk_columns(
                np.zeros(executed[i]),
                terminated=episode.terminated,
                truncated=episode.truncated,
                num_columns=num_columns,
            )
            terminations[i], truncations[i] = columns.terminated, columns.truncated
    return terminations, truncations


def episode_metrics(
    episodes: Sequence[EpisodeTally], mode: Mode, critic_counters: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    """What RLinf logs as ``env/<key>`` and ``eval/<key>``; float32 (N,) each, `success_once` bool (N,).

    `return`, `episode_len`, `reward` (return per step) are RLinf's. `success_once` is the simulator's verdict,
    and there in eval mode only: in training it would be taken for the critic's or the simulator's as one likes.
    There, `critic_done` and `sim_success` stand beside each other. `critic_mode` is 1 if the critic pays.
    `critic_retries` and `critic_failovers` are the wrapper's counts so far, the same for each of its envs.
    """
    returns = np.array([episode.episode_return for episode in episodes], np.float32)
    lengths = np.array([episode.executed_steps for episode in episodes], np.float32)
    success = np.array([episode.sim_success for episode in episodes])
    metrics: dict[str, NDArray[Any]] = {
        "return": returns,
        "episode_len": lengths,
        "reward": returns / np.maximum(lengths, 1),
        "lost": np.array([episode.is_lost for episode in episodes], np.float32),
        "critic_mode": np.full(len(episodes), mode != "eval", np.float32),
    }
    if mode == "eval":
        return metrics | {"success_once": success}
    done = np.array([episode.critic_done for episode in episodes])
    return metrics | {
        "critic_done": done.astype(np.float32),
        "critic_failed": np.array([episode.critic_failed for episode in episodes], np.float32),
        "critic_retries": np.full(len(episodes), critic_counters[CRITIC_RETRIES], np.float32),
        "critic_failovers": np.full(len(episodes), critic_counters[CRITIC_FAILOVERS], np.float32),
        "critic_false_positive": (done & ~success).astype(np.float32),
        "sim_success": success.astype(np.float32),
    }
