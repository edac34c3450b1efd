"""A curriculum's tasks in a vector env: `CurriculumWrapper`."""

__all__ = ["CurriculumWrapper"]

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
from gymnasium.error import AlreadyPendingCallError, ResetNeeded
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from vlac_gym.curriculum import Assignment, Curriculum, EpisodeResult
from vlac_gym.errors import ConfigError
from vlac_gym.vector.finished import EpisodeLog, FinishedEpisode
from vlac_gym.vector.infos import stack_infos
from vlac_gym.vector.rollout_env import RolloutVectorEnv, StepResult
from vlac_gym.wrappers.rule_setup import without_mode
from vlac_gym.wrappers.vector.vlac_reward import VLACRewardWrapper

_CHOSEN = ("task_id", "init_state_id")


class CurriculumWrapper(VectorWrapper[Any, NDArray[Any], Any, NDArray[Any], NDArray[Any]]):
    """Has a curriculum choose the task and initial state of every episode, and tells it how each one ended.

    Observations, rewards, ends and infos are those of `env`, plus ``infos["assignment"]`` after `reset` and
    `step`: dicts of `assignment_id`, `group_id`, `task_id` and `init_state_id` of the episode that the rest of
    the env's info is about. Put it outermost, around `ActionChunk` or `VLACRewardWrapper`: it must see each
    step once, so that an episode's end is matched with the assignment it began with.

    - Verdicts: with ``source="critic"``, whether the critic ended the episode; with ``"simulator"``, whether
      the simulator saw success. Episodes without a verdict are given back: lost ones, those that a `reset`
      cuts short, those whose critic failed, and all episodes of eval mode under ``"critic"``.
    - Groups: with `group_size` G, G neighbouring envs play the same assignments in the same order; one
      that is ahead of its group takes the group's next one.
    - After an exception in `step` or `reset`, all running assignments are given back; `reset` starts anew.

    Args:
        env: Made of a `RolloutVectorEnv`, without `episode_options`.
        curriculum: A `CurriculumManager` or a `RayCurriculum`; several envs can share it, but not groups
            that overlap in a `PipelinedRollout`.

    Raises:
        ConfigError: Another env, another group size than the curriculum's, or ``source="critic"`` without a
            `VLACRewardWrapper` in `env`.
    """

    def __init__(self, env: VectorEnv[Any, NDArray[Any], NDArray[Any]], curriculum: Curriculum) -> None:
        base = env.unwrapped
        if not isinstance(base, RolloutVectorEnv):
            raise ConfigError(f"Expected an env from vlac_gym.make_vec, got {env}.")
        group_size = curriculum.config.group_size
        if base.group_size != group_size:
            raise ConfigError(
                f"Expected the curriculum's group_size {group_size}, got {base.group_size} envs."
            )
        self._is_judged = _is_judged(env)
        if curriculum.config.source == "critic" and not self._is_judged:
            raise ConfigError(
                "Expected a VLACRewardWrapper in the env, got none, and the curriculum learns from the critic. "
                "Add it, or choose CurriculumConfig(source='simulator')."
            )
        super().__init__(env)
        self.curriculum = curriculum
        self._group_size = group_size
        self._steps: Any = (
            env  # with step_async, step_wait and seeds per env, as all that wraps a RolloutVectorEnv
        )
        self._log = EpisodeLog(env)
        self._is_running = self._is_pending = False
        self._waiting: list[deque[Assignment]] = [deque() for _ in range(env.num_envs)]
        self._playing: list[deque[Assignment]] = [deque() for _ in range(env.num_envs)]
        base.set_episode_options(self._next_options)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts the curriculum's next episodes, in all envs or in the groups of ``options["reset_mask"]``.

        Raises:
            ConfigError: `options` chooses tasks or states or names an unknown mode, or `reset_mask` splits a group; the
                episodes go on.
            AlreadyPendingCallError: A step is under way; the episodes go on.
        """
        self._require_idle()
        if self._is_judged:
            without_mode(options)
        chosen = sorted(set(_CHOSEN) & set(options or {}))
        if chosen:
            raise ConfigError(
                f"Expected the curriculum to choose {', '.join(_CHOSEN)}, got {chosen} in reset's options. "
                "Evaluate chosen tasks in an env without a curriculum."
            )
        mask = (options or {}).get("reset_mask")
        indices = list(range(self.num_envs)) if mask is None else np.flatnonzero(mask).tolist()
        self._check_whole_groups(indices)
        self._is_running = self._is_running or mask is None
        with self._given_back_on_error():
            self._give_back(indices)
            dealt = {i: self._next_options(i) for i in indices}
            per_env = {name: [dealt.get(i, {}).get(name) for i in range(self.num_envs)] for name in _CHOSEN}
            observations, infos = self._steps.reset(seed=seed, options={**(options or {}), **per_env})
        self._log.begin(None if mask is None else np.asarray(mask))
        return observations, self._labelled(infos, {i: self._playing[i][-1] for i in indices})

    def step(self, actions: NDArray[Any]) -> StepResult:
        """As `env.step`; reports the episodes that ended in it."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Begins a step; `step_wait` returns it."""
        if not self._is_running:
            raise ResetNeeded("There are no assigned episodes. Call reset() before the next step().")
        self._require_idle()
        with self._given_back_on_error(but_not=ConfigError):  # of the actions: nothing has moved
            self._steps.step_async(actions)
        self._is_pending = True

    def step_wait(self) -> StepResult:
        """Ends the step that `step_async` began; reports the episodes that ended in it."""
        self._is_pending = False
        with self._given_back_on_error():
            observations, rewards, terminations, truncations, infos = self._steps.step_wait()
        ended = self._log.add(rewards, terminations, truncations, infos)
        infos = self._labelled(infos, {i: own[-1] for i, own in enumerate(self._playing) if own})
        finals = {episode.env_index: self._playing[episode.env_index].popleft() for episode in ended}
        if "final_info" in infos and finals:
            infos["final_info"] = self._labelled(infos["final_info"], finals)
        self.curriculum.report_results([self._result(finals[e.env_index], e) for e in ended])
        return observations, rewards, terminations, truncations, infos

    def close(self, **kwargs: Any) -> None:
        """Gives the running assignments back and closes the envs."""
        self._give_back(range(self.num_envs))
        self._is_running = False
        super().close(**kwargs)

    def _require_idle(self) -> None:
        if self._is_pending:
            raise AlreadyPendingCallError("A step is under way. Call step_wait first.", "step")

    def _next_options(self, index: int) -> dict[str, int]:
        if not self._waiting[index]:
            first = index - index % self._group_size
            for member, assignment in enumerate(self.curriculum.get_batch(self._group_size), first):
                self._waiting[member].append(assignment)
        assignment = self._waiting[index].popleft()
        self._playing[index].append(assignment)
        return assignment.reset_options()

    def _result(self, assignment: Assignment, episode: FinishedEpisode) -> EpisodeResult:
        success: bool | None = None
        if not episode.is_lost:
            is_critics = self.curriculum.config.source == "critic"
            success = episode.critic_said_done if is_critics else episode.sim_success
        return EpisodeResult(assignment.assignment_id, success, episode.info.get("task_id"))

    def _labelled(self, infos: dict[str, Any], assignments: dict[int, Assignment]) -> dict[str, Any]:
        own = {i: {"assignment": asdict(assignment)} for i, assignment in assignments.items()}
        return {**infos, **stack_infos(own, self.num_envs)}

    def _give_back(self, indices: Iterable[int]) -> None:
        open_assignments = [a for i in indices for a in (*self._playing[i], *self._waiting[i])]
        for i in indices:
            self._playing[i].clear()
            self._waiting[i].clear()
        if open_assignments:
            self.curriculum.report_results([EpisodeResult(a.assignment_id, None) for a in open_assignments])

    @contextmanager
    def _given_back_on_error(self, but_not: type[Exception] | tuple[()] = ()) -> Iterator[None]:
        try:
            yield
        except but_not:
            raise
        except BaseException:
            self._is_running = False
            self._give_back(range(self.num_envs))
            raise

    def _check_whole_groups(self, indices: Sequence[int]) -> None:
        groups = {i // self._group_size for i in indices}
        if len(indices) != len(groups) * self._group_size:
            raise ConfigError(
                f"Expected reset_mask to select whole groups of {self._group_size} envs, got envs {list(indices)}."
            )


def _is_judged(env: VectorEnv[Any, NDArray[Any], NDArray[Any]]) -> bool:
    while isinstance(env, VectorWrapper):
        if isinstance(env, VLACRewardWrapper):
            return True
        env = env.env
    return False
