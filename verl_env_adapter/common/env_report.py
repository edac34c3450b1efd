"""What one env says to an adapter, and a batch of them: `EnvReport`, `ChunkBatch`. numpy only."""

__all__ = ["ChunkBatch", "EnvReport"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_env_adapter.common.conversion import chunk_columns
from vlac_gym.stepping.sim_signals import reported_success

_CRITIC_DONE = ("success_prob", "value")
_LIMITS = ("step_limit", "sim_terminated")
_NOTHING = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class EnvReport:
    """What one env says after a reset or an action chunk. The critic's and the simulator's words stay apart.

    Attributes:
        observation: The env's observation; after the episode's end the terminal one, until the reset.
        rewards: float32 (executed steps,): what the wrapper paid; empty after a reset and after the end.
        terminated: Gymnasium's, latched until the reset; with `truncate_as_terminal` also where the critic paid
            at the step limit.
        truncated: Was the episode cut, by its limit or a lost critic? Latched until the reset.
        sim_success: Has the simulator seen success in this episode? None if it never says.
        critic_done: Did the critic end the episode as done? Always False in eval mode.
        critic_failed: Was the episode cut because the critic failed? Mask it: its reward says nothing.
        value: The critic's value at the episode's end, in [0, 1]; None where it was not asked for.
        episode_steps: Env steps since the reset.
        episode_return: Sum of the rewards since the reset.
        task: The task text.
        info: The wrapper's `info`.
        critic_counters: The wrapper's, when this was said: of all its envs and episodes so far; empty after a reset.
    """

    observation: Any
    rewards: NDArray[np.float32]
    terminated: bool = False
    truncated: bool = False
    sim_success: bool | None
    critic_done: bool = False
    critic_failed: bool = False
    value: float | None = None
    episode_steps: int = 0
    episode_return: float = 0.0
    task: str
    info: dict[str, Any]
    critic_counters: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_reset(cls, observation: Any, info: dict[str, Any]) -> "EnvReport":
        """After a reset."""
        return cls(
            observation=observation,
            rewards=_NOTHING,
            sim_success=reported_success(info),
            task=str(info.get("task", "")),
            info=info,
        )

    def after(
        self,
        observation: Any,
        rewards: NDArray[np.float64],
        *,
        terminated: bool,
        truncated: bool,
        success: bool | None,
        info: dict[str, Any],
        critic_counters: Mapping[str, int],
    ) -> "EnvReport":
        """After another chunk of the same episode.

        Args:
            observation: After it.
            rewards: Of the executed steps.
            terminated: Of the last one, as the wrapper returned it.
            truncated: Likewise.
            success: The simulator's verdict on these steps, None if it gave none.
            info: Of the last one.
            critic_counters: The wrapper's now.
        """
        critic = info.get("critic", {})
        said = [s for s in (self.sim_success, success, reported_success(info)) if s is not None]
        values = critic.get("values")
        return EnvReport(
            observation=observation,
            rewards=rewards.astype(np.float32),
            terminated=terminated,
            truncated=truncated or critic.get("stopped_by") in _LIMITS,
            sim_success=any(said) if said else None,
            critic_done=critic.get("stopped_by") in _CRITIC_DONE,
            critic_failed=bool(critic.get("failed", False)),
            value=float(values[-1]) if values is not None and len(values) else None,
            episode_steps=self.episode_steps + len(rewards),
            episode_return=self.episode_return + float(rewards.sum()),
            task=self.task,
            info=info,
            critic_counters=critic_counters,
        )

    def idle(self) -> "EnvReport":
        """After another chunk, none of whose steps was executed since the episode was over."""
        return replace(self, rewards=_NOTHING)

    @property
    def is_over(self) -> bool:
        """Has the episode ended?"""
        return self.terminated or self.truncated


@dataclass(frozen=True)
class ChunkBatch:
    """An action chunk of B envs over T commanded steps, in the order of `env_ids`.

    Attributes:
        env_ids: int64 (B,).
        rewards: float32 (B, T); each paid at the step that earned it, 0 after the episode's end.
        terminated: bool (B, T); True from the ending step until the reset.
        truncated: bool (B, T); likewise.
        sim_success: bool (B, T); likewise from the chunk in which the simulator first saw success, whose step
            is only known where it ended the episode: the last executed one otherwise.
        critic_done: bool (B, T); the critic ended the episode, from that step on.
        critic_failed: bool (B,); the critic failed in the episode, whose rewards say nothing: mask all of its steps.
        executed_steps: int64 (B,); 0 for envs whose episode was over before.
        reports: One per env; a finished env's carries the terminal observation.
    """

    env_ids: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    sim_success: NDArray[np.bool_]
    critic_done: NDArray[np.bool_]
    critic_failed: NDArray[np.bool_]
    executed_steps: NDArray[np.int64]
    reports: tuple[EnvReport, ...]

    @classmethod
    def of(cls, reports: Mapping[int, EnvReport], num_columns: int) -> "ChunkBatch":
        """From the reports by env id.

        Args:
            reports: After the chunk.
            num_columns: T.
        """
        columns = [
            chunk_columns(
                report.rewards,
                terminated=report.terminated,
                truncated=report.truncated,
                num_columns=num_columns,
            )
            for report in reports.values()
        ]
        executed = np.array([len(report.rewards) for report in reports.values()], dtype=np.int64)
        since_last = np.arange(num_columns) >= np.maximum(executed - 1, 0)[:, None]
        return cls(
            env_ids=np.array(list(reports), dtype=np.int64),
            rewards=np.stack([column.rewards for column in columns]),
            terminated=np.stack([column.terminated for column in columns]),
            truncated=np.stack([column.truncated for column in columns]),
            sim_success=since_last & _column([bool(report.sim_success) for report in reports.values()]),
            critic_done=since_last & _column([report.critic_done for report in reports.values()]),
            critic_failed=np.array([report.critic_failed for report in reports.values()], dtype=np.bool_),
            executed_steps=executed,
            reports=tuple(reports.values()),
        )


def _column(flags: Sequence[bool]) -> NDArray[np.bool_]:
    return np.array(flags, dtype=np.bool_)[:, None]
