"""Several wrapped envs for trainers that step in batches, some or all of them at a time: `EnvPool`, `check_start`."""

__all__ = ["EnvPool", "check_start"]

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from verl_env_adapter.common.conversion import check_actions
from verl_env_adapter.common.env_report import ChunkBatch, EnvReport
from verl_env_adapter.common.env_stack import (
    close_critics,
    failure_policy_of,
    make_critic_of,
    make_vector_env,
)
from verl_env_adapter.common.settings import AdapterSettings
from vlac_gym.checks import check_int
from vlac_gym.errors import AdapterContractError, ConfigError, SimulatorError, VlacGymError, unknown_name
from vlac_gym.types import Mode
from vlac_gym.vector.infos import unstack_infos
from vlac_gym.vector.observations import copy_row
from vlac_gym.vector.step_result import ChunkResult

_RESET_KEYS = ("seed", "task_id", "init_state_id")

_T = TypeVar("_T")


class EnvPool:
    """N wrapped envs; each keeps its end, and its critic's history, until its own reset.

    The critic is asked once about all envs that are stepped together. All are in one mode: a reset of some envs in
    another mode is refused while others are in an episode, and ends those that are over.

    Trainers that step each env at its own pace use `send_reset`, `send_chunk` and `recv` instead, in one thread.

    Args:
        settings: The trainer's block.
        num_envs: N >= 1.
        host_deadline_s: How long the trainer waits for one chunk; bounds the critic's deadline.
        isolated: Each env in a process of its own, or where `placement.env_resource` says; they step at the same time,
            and one that died is started anew at its next reset.

    Raises:
        ConfigError: The settings do not fit.
    """

    def __init__(
        self,
        settings: AdapterSettings,
        num_envs: int,
        *,
        host_deadline_s: float | None = None,
        isolated: bool = False,
    ) -> None:
        check_int("num_envs", num_envs, minimum=1)
        if settings.env.init_states is not None:
            raise ConfigError(
                "env.init_states is for RLinf, whose env chooses its starts. Here the trainer names them: drop it, "
                "and give training and evaluation their initial states in the trainer's own data."
            )
        if settings.env.scenes is not None and len(settings.env.tasks or ()) != 1:
            raise ConfigError(
                f"Expected one task with env.backend: warp, got env.tasks {list(settings.env.tasks or ())}: a world "
                "keeps its task, and here the trainer names each episode's. Name one, or train on several tasks with "
                "env.backend: mujoco."
            )
        self.settings = settings
        self.num_envs = num_envs
        self._critic = make_critic_of(settings, host_deadline_s)
        self._policy = failure_policy_of(settings, host_deadline_s)
        self.envs = make_vector_env(
            settings,
            num_envs,
            critic=self._critic,
            mode="eval",
            # Raised here, where the settings say so, which loses no other episode.
            on_critic_error=replace(self._policy, then="truncate"),
            processes="async" if isolated else "sync",
        )
        self._reports: list[EnvReport | None] = [None] * num_envs
        self._needs_full_reset = True
        self._under_way: dict[
            int, EnvReport | None
        ] = {}  # sent and not received: the report before, None for a reset
        self._idle: dict[int, EnvReport] = {}  # sent a chunk after their episode's end

    @property
    def action_size(self) -> int:
        """A, the length of one action."""
        return int(self.envs.single_action_space.shape[-1])  # type: ignore[index]

    def reports(self, env_ids: Sequence[int] | None = None) -> list[EnvReport | None]:
        """The last report of each env; None for one that was never reset or lost its episode."""
        return [self._reports[i] for i in self._ids(env_ids)]

    def reset(
        self,
        env_ids: Sequence[int] | None = None,
        *,
        mode: Mode,
        options: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[EnvReport]:
        """Starts episodes; the critic's history of the ones before is dropped.

        Args:
            env_ids: Which envs; None means all.
            mode: From the trainer's phase, see `AdapterSettings.mode_in`.
            options: For each of them `seed`, `task_id` and `init_state_id`, all optional.

        Raises:
            ConfigError: The options don't fit; no env was reset. Or the env has no such start.
            AdapterContractError: Other envs are in an episode of the other mode.
            SimulatorError: A simulator can't be started. All episodes are lost, as with any error of an env.
        """
        ids = self._ids(env_ids)
        starts = self._checked_starts(ids, options)
        if mode != self.envs.mode:
            self._refuse_running_others(ids, mode)
            self._needs_full_reset = True
        if self._needs_full_reset:
            # An env that nobody asked for begins like one that somebody did, and idles.
            starts = dict.fromkeys(range(self.num_envs), next(iter(starts.values()))) | starts
        self._begin(starts, mode)
        self._needs_full_reset = False
        self._forget(starts.keys() - set(ids))
        return [self._last(i) for i in ids]

    def step_chunk(self, actions: Any, env_ids: Sequence[int] | None = None) -> ChunkBatch:
        """Executes (B, T, A) actions (or (B, A), single ones), each env up to its episode's end.

        Raises:
            AdapterContractError: Another shape or values that are not finite; nothing was executed.
            CriticError: With ``on_error: raise``; the episodes that it concerns are lost, the others go on.
            SimulatorError: A simulator failed; likewise.
            CircuitBreakerError: More was lost to the critic than ``on_error`` allows; here and at every reset from
                now on.
        """
        ids = self._ids(env_ids)
        chunks = check_actions(
            actions,
            num_envs=len(ids),
            action_size=self.action_size,
            max_chunk=self.settings.env.chunk,
            where="step_chunk",
        )
        if idle := [i for i in ids if self._reports[i] is None]:
            raise AdapterContractError(f"Envs {idle} have no running episode. Reset them before stepping.")
        running = {i: chunk for i, chunk in zip(ids, chunks, strict=True) if not self._last(i).is_over}
        for i in set(ids) - running.keys():
            self._reports[i] = self._last(i).idle()
        if running and (lost := self._play(running)):
            raise next(iter(lost.values()))
        return ChunkBatch.of({i: self._last(i) for i in ids}, chunks.shape[1])

    # Each env at its own pace.

    def switch_mode(self, mode: Mode) -> None:
        """Gives up all episodes, none of which may be under way, for new ones in this mode."""
        self._forget(range(self.num_envs))
        self._needs_full_reset = True
        self.envs.set_mode(mode, abandon=True)

    @property
    def is_under_way(self) -> bool:
        """Is there an env that was sent anything and not received?"""
        return bool(self._under_way or self._idle)

    def send_reset(self, env_id: int, start: Mapping[str, Any]) -> None:
        """Begins an episode in an env that is not under way, in the present mode.

        Args:
            env_id: Which env.
            start: `seed`, `task_id` and `init_state_id`, all optional.

        Raises:
            ConfigError: There is no such start; the env's episode goes on.
        """
        check_start(start, self.settings)
        options = {key: value for key, value in start.items() if key != "seed" and value is not None}
        self._forget([env_id])
        self.envs.send_reset([env_id], seeds=[start.get("seed")], options=[options])
        self._under_way[env_id] = None

    def send_chunk(self, env_id: int, actions: Any) -> None:
        """Begins (T, A) actions in an env that is not under way; it stops where its episode ends.

        Raises:
            AdapterContractError: Another shape or values that are not finite, or the env has no episode; nothing was
                executed.
        """
        before = self._reports[env_id]
        if before is None:
            raise AdapterContractError(
                "The env has no running episode: it was not reset, or another env failed since. Call reset."
            )
        chunk = check_actions(
            np.asarray(actions)[None],
            num_envs=1,
            action_size=self.action_size,
            max_chunk=self.settings.env.chunk,
            where="the policy",
        )
        if before.is_over:
            self._idle[env_id] = self._reports[env_id] = before.idle()
            return
        self._forget([env_id])
        self.envs.send_chunks(chunk, [env_id])
        self._under_way[env_id] = before

    def recv(self) -> dict[int, EnvReport | VlacGymError]:
        """Waits until an env is ready that was sent anything, or for `interrupt_recv`; what all that are ready say.

        An error in place of a report is of this env's episode alone, which is lost.

        Raises:
            SimulatorError: An env can't be reset. All episodes are lost, as with any error of an env.
        """
        idle, self._idle = self._idle, {}
        if idle or not self._under_way:
            return dict(idle)
        env_ids, result = self._all_or_nothing(self.envs.recv_chunks)
        infos = unstack_infos(result.infos, len(env_ids))
        return {
            i: self._outcome(i, row, result, infos[row], self._under_way.pop(i))
            for row, i in enumerate(env_ids.tolist())
        }

    def interrupt_recv(self) -> None:
        """Has a `recv` that waits, else the next one, return; may be called from another thread."""
        self.envs.interrupt_recv()

    def close(self) -> None:
        """Closes every env and the critic; safe to call twice."""
        self.envs.close()
        close_critics(self._critic, self._policy)

    def _play(self, chunks: Mapping[int, NDArray[np.float32]]) -> dict[int, VlacGymError]:
        first = next(iter(chunks.values()))
        actions = np.zeros((self.num_envs, *first.shape), first.dtype)
        actions[list(chunks)] = list(chunks.values())
        before = {i: self._last(i) for i in chunks}
        self._forget(chunks)  # Whatever raises below leaves episodes that can't go on.
        result = self._all_or_nothing(
            lambda: self.envs.step_chunk(actions, np.isin(np.arange(self.num_envs), list(chunks)))
        )
        infos = unstack_infos(result.infos, self.num_envs)
        outcomes = {i: self._outcome(i, i, result, infos[i], report) for i, report in before.items()}
        return {i: outcome for i, outcome in outcomes.items() if isinstance(outcome, VlacGymError)}

    def _outcome(
        self, env_id: int, row: int, result: ChunkResult, info: dict[str, Any], before: EnvReport | None
    ) -> EnvReport | VlacGymError:
        """What a row of a step says about an env, also noted; or why its episode is lost.

        Args:
            env_id: The env.
            row: Its row.
            result: The step.
            info: The env's.
            before: The env's report before; None for a reset.
        """
        if result.infos["lost"][row]:
            return SimulatorError(f"Env {env_id} lost its episode: {info['lost_reason']}. Reset it.")
        error = self.envs.critic_errors.get(env_id)
        if error is not None and self._policy.then == "raise":
            return error
        observation = copy_row(result.observations, row)
        if before is None:
            report = EnvReport.of_reset(observation, info)
        else:
            report = before.after(
                observation,
                result.rewards[row, : result.executed_steps[row]],
                terminated=bool(result.terminations[row]),
                truncated=bool(result.truncations[row]),
                success=result.successes[row],
                info=info,
                critic_counters=self.envs.critic_counters,
            )
        self._reports[env_id] = report
        return report

    def _begin(self, starts: Mapping[int, Mapping[str, Any]], mode: Mode) -> None:
        every = range(self.num_envs)
        values = {key: [starts.get(i, {}).get(key) for i in every] for key in _RESET_KEYS}
        seeds = values.pop("seed")
        options: dict[str, Any] = {key: row for key, row in values.items() if any(v is not None for v in row)}
        if len(starts) < self.num_envs:
            options["reset_mask"] = np.isin(every, list(starts))
        self._forget(starts)
        observations, infos = self._all_or_nothing(
            lambda: self.envs.reset(seed=seeds, options={**options, "mode": mode})
        )
        each = unstack_infos(infos, self.num_envs)
        for i in starts:
            self._reports[i] = EnvReport.of_reset(copy_row(observations, i), each[i])

    def _all_or_nothing(self, call: Callable[[], _T]) -> _T:
        """What the vector env answers; an error that it raises has cost it every episode."""
        try:
            return call()
        except BaseException:
            self._forget(range(self.num_envs))
            self._under_way = {}
            self._needs_full_reset = True
            raise

    def _forget(self, ids: Iterable[int]) -> None:
        for i in ids:
            self._reports[i] = None

    def _last(self, env_id: int) -> EnvReport:
        report = self._reports[env_id]
        assert report is not None
        return report

    def _refuse_running_others(self, ids: Sequence[int], mode: Mode) -> None:
        others = [
            i
            for i, report in enumerate(self._reports)
            if i not in ids and report is not None and not report.is_over
        ]
        if others:
            raise AdapterContractError(
                f"Expected a reset in {self.envs.mode!r} mode, got {mode!r}: envs {others} are in an episode. Play "
                "them to their end, or reset all."
            )

    def _checked_starts(
        self, ids: Sequence[int], options: Sequence[Mapping[str, Any]] | None
    ) -> dict[int, dict[str, Any]]:
        chosen = [{}] * len(ids) if options is None else [dict(item) for item in options]
        if len(chosen) != len(ids):
            raise ConfigError(f"Expected reset options for {len(ids)} envs, got {len(chosen)}.")
        for item in chosen:
            check_start(item, self.settings)
        return dict(zip(ids, chosen, strict=True))

    def _ids(self, env_ids: Sequence[int] | None) -> list[int]:
        if env_ids is None:
            return list(range(self.num_envs))
        ids = [int(i) for i in env_ids]
        if len(set(ids)) != len(ids) or not all(0 <= i < self.num_envs for i in ids):
            raise AdapterContractError(f"Expected different env ids in 0..{self.num_envs - 1}, got {ids}.")
        return ids


def check_start(start: Mapping[str, Any], settings: AdapterSettings) -> None:
    """Refuses a start that the settings' env does not have; starts no simulator.

    Args:
        start: `seed`, `task_id` and `init_state_id`, each optional or None.
        settings: The trainer's block.

    Raises:
        ConfigError: Another key, or there is no such task or initial state.
    """
    for name in start:
        if name not in _RESET_KEYS:
            raise unknown_name("reset option", str(name), _RESET_KEYS)
    task_id, init_state_id = start.get("task_id"), start.get("init_state_id")
    if task_id is None and init_state_id is None:
        return
    env = settings.env
    if not env.is_libero:
        raise ConfigError(f"task_id and init_state_id are LIBERO's, but env.id is {env.id!r}.")
    if task_id is not None and env.scenes is None:  # worlds know their own
        from vlac_gym.envs.libero.tasks import check_init_state, get_task

        task = get_task(env.suite, task_id)
        if init_state_id is not None:
            check_init_state(task, init_state_id)
