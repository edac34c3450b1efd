"""Several wrapped envs for trainers that step in batches: `EnvPool`, with `ChunkBatch` as the result of a step."""

__all__ = ["ChunkBatch", "EnvPool"]

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from verl_env_adapter.conversion import check_actions, chunk_columns
from verl_env_adapter.episode_env import EnvReport, EpisodeEnv
from verl_env_adapter.isolated_env import IsolatedEnv
from verl_env_adapter.settings import AdapterSettings
from vlac_gym.critic.base import Critic
from vlac_gym.critic.registry import make_critic
from vlac_gym.errors import AdapterContractError, ConfigError, unknown_name
from vlac_gym.types import Mode

_RESET_KEYS = ("seed", "task_id", "init_state_id")

_T = TypeVar("_T")


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
        executed_steps: int64 (B,); 0 for envs whose episode was over before.
        reports: One per env; a finished env's carries the terminal observation.
        restarted: Report of the reset for envs that `auto_reset` started anew, else None.
    """

    env_ids: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    sim_success: NDArray[np.bool_]
    critic_done: NDArray[np.bool_]
    executed_steps: NDArray[np.int64]
    reports: tuple[EnvReport, ...]
    restarted: tuple[EnvReport | None, ...]

    @property
    def observations(self) -> list[Any]:
        """What the policy sees next: the new episode's observation where one was started."""
        return [(new or old).observation for new, old in zip(self.restarted, self.reports, strict=True)]

    @property
    def final_observations(self) -> list[Any]:
        """The terminal observation of every env whose episode is over, else None."""
        return [report.observation if report.is_over else None for report in self.reports]


class EnvPool:
    """N wrapped envs; each keeps its end, and its critic's history, until its own reset.

    The client of a critic server is shared; a critic in this process is built for each env, so that one that
    remembers an env's signals never mixes two. Serve a model instead of giving its path when N > 1.

    Args:
        settings: The trainer's block.
        num_envs: N >= 1.
        auto_reset: Start an env anew in the chunk that ended its episode; the terminal observation stays in
            `ChunkBatch.reports`.
        host_deadline_s: How long the trainer waits for one chunk of all envs; bounds the critic's deadline.
        isolated: Each env in a process of its own, with a critic client of its own; they step at the same time,
            and one that died is started anew at its next reset.

    Raises:
        ConfigError: The settings do not fit.
    """

    def __init__(
        self,
        settings: AdapterSettings,
        num_envs: int,
        *,
        auto_reset: bool = False,
        host_deadline_s: float | None = None,
        isolated: bool = False,
    ) -> None:
        if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
            raise ConfigError(f"Expected num_envs as an int >= 1, got {num_envs!r}.")
        self.settings = settings
        self.auto_reset = auto_reset
        self._shared: Critic | None = None
        self._threads = ThreadPoolExecutor(num_envs, thread_name_prefix="vlac-gym-env") if isolated else None
        self._envs: Sequence[EpisodeEnv | IsolatedEnv]
        if isolated:
            self._envs = [IsolatedEnv(settings) for _ in range(num_envs)]
        else:
            # The envs of a pool are asked one after another, within the host's one deadline.
            share = None if host_deadline_s is None else host_deadline_s / num_envs
            options = settings.critic_options(share)
            self._shared = make_critic(settings.critic.spec, **options) if options else None
            self._envs = [
                EpisodeEnv(settings, critic=self._shared, host_deadline_s=share) for _ in range(num_envs)
            ]
        self._modes: list[Mode | None] = [None] * num_envs

    @property
    def num_envs(self) -> int:
        """N."""
        return len(self._envs)

    @property
    def action_size(self) -> int:
        """A, the length of one action."""
        return self._envs[0].action_size

    def reports(self, env_ids: Sequence[int] | None = None) -> list[EnvReport | None]:
        """The last report of each env; None for one that was never reset or lost its episode."""
        return [self._envs[i].report for i in self._ids(env_ids)]

    def reset(
        self,
        env_ids: Sequence[int] | None = None,
        *,
        mode: Mode,
        options: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[EnvReport]:
        """Starts episodes.

        Args:
            env_ids: Which envs; None means all.
            mode: From the trainer's phase, see `AdapterSettings.mode_in`.
            options: For each of them `seed`, `task_id` and `init_state_id`, all optional.

        Raises:
            ConfigError: An option or id does not fit; no env was reset.
        """
        ids = self._ids(env_ids)
        chosen = [dict(item) for item in options] if options is not None else [{} for _ in ids]
        if len(chosen) != len(ids):
            raise ConfigError(f"Expected reset options for {len(ids)} envs, got {len(chosen)}.")
        for item in chosen:
            for name in item:
                if name not in _RESET_KEYS:
                    raise unknown_name("reset option", str(name), _RESET_KEYS)
        return self._map([partial(self._start, i, mode, item) for i, item in zip(ids, chosen, strict=True)])

    def step_chunk(self, actions: Any, env_ids: Sequence[int] | None = None) -> ChunkBatch:
        """Executes (B, T, A) actions (or (B, A), single ones), each env up to its episode's end.

        Raises:
            AdapterContractError: Another shape or values that are not finite; nothing was executed.
            CriticError: With ``on_error: raise``.
            SimulatorError: A simulator failed.
        """
        ids = self._ids(env_ids)
        chunks = check_actions(
            actions,
            num_envs=len(ids),
            action_size=self.action_size,
            max_chunk=self.settings.env.chunk,
            where="step_chunk",
        )
        idle = [i for i in ids if self._envs[i].report is None]
        if idle:
            raise AdapterContractError(f"Envs {idle} have no running episode. Reset them before stepping.")
        played = self._map([partial(self._play, i, chunk) for i, chunk in zip(ids, chunks, strict=True)])
        reports, restarted = zip(*played, strict=True)
        return _batch(ids, reports, restarted, chunks.shape[1])

    def close(self) -> None:
        """Closes every env and the critic; safe to call twice."""
        for env in self._envs:
            env.close()
        if self._shared is not None:
            self._shared.close()
        if self._threads is not None:
            self._threads.shutdown()

    def _start(self, env_id: int, mode: Mode, options: dict[str, Any]) -> EnvReport:
        report = self._envs[env_id].reset(mode=mode, **options)
        self._modes[env_id] = mode
        return report

    def _play(self, env_id: int, chunk: NDArray[np.float32]) -> tuple[EnvReport, EnvReport | None]:
        report = self._envs[env_id].step_chunk(chunk)
        return report, self._restart(env_id, report)

    def _map(self, calls: Sequence[Callable[[], _T]]) -> list[_T]:
        """The results of all calls; the first failure is raised once no call is running."""
        if self._threads is None:
            return [call() for call in calls]
        futures = [self._threads.submit(call) for call in calls]
        wait(futures)
        return [future.result() for future in futures]

    def _restart(self, env_id: int, report: EnvReport) -> EnvReport | None:
        mode = self._modes[env_id]
        if not (self.auto_reset and report.is_over) or mode is None:
            return None
        return self._envs[env_id].reset(mode=mode)

    def _ids(self, env_ids: Sequence[int] | None) -> list[int]:
        if env_ids is None:
            return list(range(self.num_envs))
        ids = [int(i) for i in env_ids]
        if len(set(ids)) != len(ids) or not all(0 <= i < self.num_envs for i in ids):
            raise AdapterContractError(f"Expected different env ids in 0..{self.num_envs - 1}, got {ids}.")
        return ids


def _batch(
    ids: list[int], reports: Sequence[EnvReport], restarted: Sequence[EnvReport | None], num_columns: int
) -> ChunkBatch:
    columns = [
        chunk_columns(
            report.rewards,
            terminated=report.terminated,
            truncated=report.truncated,
            num_columns=num_columns,
        )
        for report in reports
    ]
    executed = np.array([len(report.rewards) for report in reports], dtype=np.int64)
    since_last = np.arange(num_columns) >= np.maximum(executed - 1, 0)[:, None]
    return ChunkBatch(
        env_ids=np.array(ids, dtype=np.int64),
        rewards=np.stack([column.rewards for column in columns]),
        terminated=np.stack([column.terminated for column in columns]),
        truncated=np.stack([column.truncated for column in columns]),
        sim_success=since_last & np.array([bool(report.sim_success) for report in reports])[:, None],
        critic_done=since_last & np.array([report.critic_done for report in reports])[:, None],
        executed_steps=executed,
        reports=tuple(reports),
        restarted=tuple(restarted),
    )
