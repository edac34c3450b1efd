"""Episodes as they end in a vector env, each with the env and task that played it: `EpisodeLog`, `FinishedEpisode`."""

__all__ = ["EpisodeLog", "FinishedEpisode", "reward_wrapper_of"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from vlac_gym.stepping.sim_signals import reported_success
from vlac_gym.vector.infos import unstack_infos


class EpisodeCounter(Protocol):
    """What counts episodes: `EpisodeMetrics`, `CriticAudit`."""

    def add(
        self,
        *,
        num_steps: int,
        episode_return: float,
        sim_success: bool | None,
        critic_said_done: bool | None = None,
        success_prob: float | None = None,
        latency_ms: float | None = None,
        critic_failures: int = 0,
    ) -> None:
        """Adds one finished episode."""


@dataclass(frozen=True)
class FinishedEpisode:
    """One episode that ended.

    Attributes:
        env_index: Which env played it.
        num_steps: Env steps.
        episode_return: Undiscounted return.
        is_lost: It ended with its worker or simulator: no statement about success.
        info: The info of its last step, for `task_id`, `init_state_id`, `critic` and the like.
        sim_success: Whether the simulator saw success at a step whose info the log was given (in train mode: at any
            step); None if it gave no verdict, as for an env that has none.
        latency_ms: Mean latency of the critic's checks that were seen, or None if there were none. In a pipelined
            rollout, whose groups run ahead, that of a neighbouring step may be taken.
    """

    env_index: int
    num_steps: int
    episode_return: float
    is_lost: bool
    info: dict[str, Any]
    sim_success: bool | None
    latency_ms: float | None

    @property
    def critic_said_done(self) -> bool | None:
        """Whether the critic ended it; None if it was not asked or failed."""
        critic = self.info.get("critic")
        if critic is None or critic.get("failed"):
            return None
        return critic.get("stopped_by") in ("success_prob", "value")

    def add_to(self, metrics: EpisodeCounter) -> None:
        """Counts it, unless it is lost."""
        if self.is_lost:
            return
        critic = self.info.get("critic", {})
        metrics.add(
            num_steps=self.num_steps,
            episode_return=self.episode_return,
            sim_success=self.sim_success,
            critic_said_done=self.critic_said_done,
            success_prob=critic.get("success_prob"),
            latency_ms=self.latency_ms,
            critic_failures=int(bool(critic.get("failed"))),
        )


class EpisodeLog:
    """Follows a vector env step by step and hands out the episodes that end.

    Args:
        env: The env whose steps are given to `add`; its autoreset mode says which steps belong together.

    Example:
        >>> from functools import partial
        >>> from vlac_gym.envs.scripted import ScriptedEnv
        >>> from vlac_gym.vector import RolloutVectorEnv
        >>> env = RolloutVectorEnv([partial(ScriptedEnv, success_steps=[2])] * 2, mode="sync")
        >>> log = EpisodeLog(env)
        >>> _ = env.reset(seed=0)
        >>> steps = [log.add(*env.step(env.action_space.sample())[1:]) for _ in range(2)]
        >>> [(ended.env_index, ended.num_steps, ended.episode_return) for ended in steps[1]]
        [(0, 2, 1.0), (1, 2, 1.0)]
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        self._num_envs = env.num_envs
        self._judged = reward_wrapper_of(env)
        self._resets_at_once = env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
        self.begin()

    def begin(self, mask: NDArray[np.bool_] | None = None) -> None:
        """Starts anew, after a `reset` of all envs or of those in `mask` (bool (N,))."""
        if mask is None:
            mask = np.ones(self._num_envs, np.bool_)
            self._num_steps = np.zeros(self._num_envs, np.int64)
            self._returns = np.zeros(self._num_envs, np.float64)
            self._latencies: list[list[float]] = [[] for _ in range(self._num_envs)]
            self._successes: list[bool | None] = [None] * self._num_envs
            self._is_over = np.zeros(self._num_envs, np.bool_)
        for i in np.flatnonzero(mask).tolist():
            self._forget(i)
        self._is_over[mask] = False

    def add(
        self,
        rewards: NDArray[Any],
        terminations: NDArray[Any],
        truncations: NDArray[Any],
        infos: Mapping[str, Any],
    ) -> list[FinishedEpisode]:
        """Takes what a step returned beside observations; returns the episodes that ended in it."""
        chunk = infos.get("chunk")
        executed = chunk["executed_steps"] if chunk else np.ones(self._num_envs, np.int64)
        lost = infos.get("lost", np.zeros(self._num_envs, np.bool_))
        singles = unstack_infos(infos, self._num_envs)
        latency_ms = None if self._judged is None else self._judged.critic_latency_ms
        ended = []
        # An env that was over before this step was reset by it, or idled.
        acted = np.flatnonzero(~self._is_over).tolist()
        for i in acted:
            is_last = bool(terminations[i] or truncations[i])
            info = singles[i]["final_info"] if is_last and self._resets_at_once else singles[i]
            self._num_steps[i] += executed[i]
            self._returns[i] += rewards[i]
            if (success := reported_success(info)) is not None:
                self._successes[i] = success or bool(self._successes[i])
            if latency_ms is not None and not np.isnan(latency_ms[i]):
                self._latencies[i].append(float(latency_ms[i]))
            if is_last:
                ended.append(self._finish(i, info, is_lost=bool(lost[i])))
        if not self._resets_at_once:
            stays = np.asarray(terminations) | np.asarray(truncations)
            self._is_over = np.array(stays, np.bool_)
        return ended

    def _finish(self, i: int, info: dict[str, Any], *, is_lost: bool) -> FinishedEpisode:
        latencies = self._latencies[i]
        finished = FinishedEpisode(
            env_index=i,
            num_steps=int(self._num_steps[i]),
            episode_return=float(self._returns[i]),
            is_lost=is_lost,
            info=info,
            sim_success=self._successes[i],
            latency_ms=sum(latencies) / len(latencies) if latencies else None,
        )
        self._forget(i)
        return finished

    def _forget(self, i: int) -> None:
        self._num_steps[i] = 0
        self._returns[i] = 0.0
        self._latencies[i] = []
        self._successes[i] = None


def reward_wrapper_of(env: VectorEnv[Any, Any, Any]) -> Any | None:
    """The reward wrapper in `env`, which knows how long the critic took; None if there is none."""
    while isinstance(env, VectorWrapper):
        if hasattr(env, "critic_latency_ms"):
            return env
        env = env.env
    return None
