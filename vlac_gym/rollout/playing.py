"""Episodes that are played by whichever env is free: `RunningEpisode`, `EpisodeStart`, `PlayedEpisode`, `PolicyRow`."""

__all__ = ["EpisodeStart", "PlayedEpisode", "PolicyRow", "RunningEpisode"]

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.stepping.sim_signals import reported_success
from vlac_gym.vector.finished import FinishedEpisode


@dataclass(frozen=True)
class EpisodeStart:
    """How an episode begins, and where it may.

    Attributes:
        seed: Of the env's reset.
        options: Of the env's reset, e.g. ``{"task_id": 3, "init_state_id": 5}``.
        envs: Indices of the envs that may play it, hashable, as a `range` or tuple; None for any.
    """

    seed: int
    options: Mapping[str, Any] | None = None
    envs: Collection[int] | None = None

    @property
    def task_id(self) -> Any:
        """The task that the options name; None if they name none."""
        return (self.options or {}).get("task_id")


@dataclass(frozen=True)
class PolicyRow:
    """What a policy may want to know about a row of a batch beside its observation.

    Attributes:
        episode: Number of the episode.
        step: Number of the action (or chunk) that is wanted, from 0.
        env_steps: Env steps executed so far; `step` without chunks.
        start: How the episode began.
        rng: The episode's own generator; what a policy draws from it doesn't depend on the batch.
        info: The env's, of the observation.
    """

    episode: int
    step: int
    env_steps: int
    start: EpisodeStart
    rng: np.random.Generator
    info: dict[str, Any]


@dataclass(frozen=True)
class PlayedEpisode:
    """An episode from its start to its end, of T steps (or chunks).

    Attributes:
        index: Its number.
        group: Number of its group, which shares the start.
        start: How it began.
        observations: T + 1 of them; where the rollout keeps none, all but the last are None.
        actions: T of them, as the policy gave them.
        rewards: float64 (T,).
        executed_steps: int64 (T,), env steps of each; ones without chunks.
        infos: T + 1 of them.
        terminated: It ended terminated.
        truncated: It ended truncated.
        finished: What metrics count of it. Its `env_index` and `latency_ms` depend on timing, and nothing else does.
    """

    index: int
    group: int
    start: EpisodeStart
    observations: list[Any]
    actions: list[NDArray[Any]]
    rewards: NDArray[np.float64]
    executed_steps: NDArray[np.int64]
    infos: list[dict[str, Any]]
    terminated: bool
    truncated: bool
    finished: FinishedEpisode

    @property
    def is_lost(self) -> bool:
        """It was lost with its worker or simulator more often than it may be repeated; no statement about success. Its
        last step's observation is the one before it.
        """
        return self.finished.is_lost


class RunningEpisode:
    """An episode that is being played, and can be repeated up to where it was when its worker died.

    Args:
        index: Its number.
        group: Its group's number.
        start: How it begins.
        rng: Its policy's generator.
        keeps_observations: False keeps the latest alone.

    Attributes:
        env_index: The env that plays it; -1 before it begins.
        losses: How often it was lost.
    """

    def __init__(
        self,
        index: int,
        group: int,
        start: EpisodeStart,
        rng: np.random.Generator,
        *,
        keeps_observations: bool,
    ) -> None:
        self.index, self.group, self.start, self.rng = index, group, start, rng
        self.env_index = -1
        self.losses = 0
        self.observations: list[Any] = []
        self.actions: list[NDArray[Any]] = []
        self.rewards: list[float] = []
        self.executed_steps: list[int] = []
        self.infos: list[dict[str, Any]] = []
        self.terminated = self.truncated = self.is_lost = False
        self._keeps_observations = keeps_observations
        self._latencies_ms: list[float] = []
        self._num_returned = -1  # since its latest reset, which counts as the first

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.terminated or self.truncated

    @property
    def repeated_action(self) -> NDArray[Any] | None:
        """What the env must be given to get back to where the episode was; None if it is there."""
        return self.actions[self._num_returned] if self._num_returned < len(self.actions) else None

    def row(self) -> PolicyRow:
        """For the policy."""
        env_steps = sum(self.executed_steps)
        return PolicyRow(self.index, len(self.actions), env_steps, self.start, self.rng, self.infos[-1])

    def begin(self, env_index: int) -> None:
        """This env is about to be reset for it."""
        self.env_index = env_index
        self._num_returned = -1

    def take(
        self,
        observation: Any,
        reward: float,
        terminated: bool,
        truncated: bool,
        info: dict[str, Any],
        latency_ms: float,
    ) -> bool:
        """What its reset or next step returned; returns whether that is news.

        A repeated step may not end the episode, which had gone on after it: worlds on a GPU do not repeat to the bit.
        There it is given up, and what its end says of it is not told: that was another episode's.
        """
        self._num_returned += 1
        if self._num_returned < len(self.observations):
            if not (terminated or truncated):
                return False
            reason = (
                f"the env was lost at step {len(self.rewards) + 1}, and when the steps before it were repeated, the "
                f"episode ended at step {self._num_returned}, where it had gone on"
            )
            nothing = {"chunk": {"executed_steps": 0, "rewards": np.zeros(1)}} if "chunk" in info else {}
            self.give_up({"lost": True, "lost_reason": reason, **nothing})
            return True
        self._see(observation, info)
        if self._num_returned:
            self.rewards.append(reward)
            self.executed_steps.append(int(info["chunk"]["executed_steps"]) if "chunk" in info else 1)
            self.terminated, self.truncated = terminated, truncated
            if not np.isnan(latency_ms):
                self._latencies_ms.append(latency_ms)
        return True

    def give_up(self, info: dict[str, Any]) -> None:
        """It was lost too often: it ends here."""
        self._see(self.observations[-1], info)
        self.rewards.append(0.0)
        self.executed_steps.append(0)
        self.truncated = self.is_lost = True

    def played(self) -> PlayedEpisode:
        """The episode as it ended."""
        return PlayedEpisode(
            self.index, self.group, self.start, self.observations, self.actions,
            np.array(self.rewards, np.float64), np.array(self.executed_steps, np.int64), self.infos,
            self.terminated, self.truncated, self._finished(),
        )  # fmt: skip

    def _see(self, observation: Any, info: dict[str, Any]) -> None:
        if self.observations and not self._keeps_observations:
            self.observations[-1] = None
        self.observations.append(observation)
        self.infos.append(info)

    def _finished(self) -> FinishedEpisode:
        verdicts = [v for info in self.infos[1:] if (v := reported_success(info)) is not None]
        latencies_ms = self._latencies_ms
        return FinishedEpisode(
            env_index=self.env_index,
            num_steps=sum(self.executed_steps),
            episode_return=sum(self.rewards),
            is_lost=self.is_lost,
            info=self.infos[-1],
            sim_success=any(verdicts) if verdicts else None,
            latency_ms=sum(latencies_ms) / len(latencies_ms) if latencies_ms else None,
        )
