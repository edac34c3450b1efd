"""The env class that RLinf's env workers start: `RolloutEnv`. See `verl_env_adapter.rlinf.plugin`; needs torch."""

__all__ = ["RolloutEnv"]

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from verl_env_adapter.common.conversion import (
    check_actions,
    rename_keys,
    stack_images,
    stack_vectors,
)
from verl_env_adapter.common.env_stack import (
    close_critics,
    failure_policy_of,
    make_critic_of,
    make_vector_env,
)
from verl_env_adapter.common.sources import RLINF
from verl_env_adapter.rlinf.episodes import EpisodeTally, end_flags, episode_metrics
from verl_env_adapter.rlinf.options import read_options
from verl_env_adapter.rlinf.starts import ResetState, ResetStates, task_trials
from verl_env_adapter.rlinf.unjudged import mark
from vlac_gym.critic.base import Critic
from vlac_gym.errors import AdapterContractError, ConfigError
from vlac_gym.extras import needs
from vlac_gym.frames.convention import ImageConvention
from vlac_gym.vector.infos import unstack_infos
from vlac_gym.vector.step_result import ChunkResult

with needs("The RLinf adapter", get=RLINF):
    import torch

_IMAGES = {"main_images": "agentview_image", "wrist_images": "wrist_image"}
"""RLinf's name -> this package's; the wrist only where the env shows it."""

ChunkReply = tuple[list[Any], torch.Tensor, torch.Tensor, torch.Tensor, list[dict[str, Any]]]


class RolloutEnv:
    """N wrapped envs in worker processes behind the interface of RLinf's `LiberoEnv`.

    An env whose episode is over stays as it is until its reset: nothing is stepped or asked. Arrays are torch
    tensors on the CPU: `main_images` and `wrist_images` uint8 (N, H, W, 3), `states` float32 (N, D),
    `task_descriptions` a list of N texts.

    Args:
        cfg: RLinf's ``env.train`` or ``env.eval``.
        num_envs: N.
        seed_offset: This stage's number among `total_num_processes`.
        total_num_processes: Env workers times stages.
        worker_info: RLinf's; unused.
        critic: Instead of the settings' one, for tests.
        processes: `sync` keeps the envs in this process, for tests.

    Raises:
        ConfigError: The config does not fit; no process was started.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_fps": 20}

    def __init__(
        self,
        cfg: Any,
        num_envs: int,
        seed_offset: int,
        total_num_processes: int,
        worker_info: Any = None,
        *,
        critic: Critic | None = None,
        processes: Literal["async", "sync"] = "async",
    ) -> None:
        self.cfg = cfg
        self.num_envs = num_envs
        self.options = options = read_options(cfg)
        self.seed = options.seed + seed_offset
        self.is_start = True
        self._states = self._dealers(seed_offset, total_num_processes)
        self._critic = critic or make_critic_of(options.settings)
        self._policy = failure_policy_of(options.settings)
        self._envs = make_vector_env(
            options.settings,
            num_envs,
            critic=self._critic,
            mode=options.mode,
            on_critic_error=self._policy,
            processes=processes,
            envs_per_worker=-(-num_envs // min(options.settings.placement.envs_per_worker, num_envs)),
        )
        self._episodes: list[EpisodeTally | None] = [None] * num_envs
        # Entry k of a group's list is the start of the k-th episode of each of its envs, whenever they begin it.
        self._group_starts: list[list[ResetState | None]] = []
        self._num_started = [0] * num_envs
        self.update_reset_state_ids()

    @property
    def task_descriptions(self) -> list[str]:
        """The envs' task texts."""
        return [episode.task if episode is not None else "" for episode in self._episodes]

    @property
    def elapsed_steps(self) -> NDArray[np.int64]:
        """Executed env steps of the running episodes, (N,)."""
        return np.array([episode.executed_steps if episode else 0 for episode in self._episodes])

    def _dealers(self, rank: int, num_ranks: int) -> list[ResetStates]:
        """What deals out this stage's starts: one dealer for all envs, or one per task where worlds keep theirs."""
        options, env = self.options, self.options.settings.env
        tasks = [None] if env.scenes is None else list(dict.fromkeys(env.tasks_of_worlds(self.num_envs)))
        if self.num_envs // len(tasks) % options.group_size:
            raise ConfigError(
                f"Expected env.group_size to divide a stage's {self.num_envs // len(tasks)} envs"
                f"{' of each task' if len(tasks) > 1 else ''}, got {options.group_size}."
            )
        return [
            ResetStates(
                task_trials(env),
                group_size=options.group_size,
                share=(rank, num_ranks),
                seed=options.seed,
                order="once" if options.is_eval else "shuffled" if options.is_ordered else "drawn",
                fixed_id=options.fixed_id,
                trials_played=env.init_states_in("eval" if options.is_eval else "train"),
                task_id=task_id,
            )
            for task_id in tasks
        ]

    def update_reset_state_ids(self) -> None:
        """Deals out the starts of the reset that follows ``is_start = True``."""
        groups = self.num_envs // self.options.group_size // len(self._states)
        starts = [start for states in self._states for start in states.next_groups(groups)]
        self._next_starts = [[start] for start in starts[:: self.options.group_size]]

    def reset(
        self, env_idx: Sequence[int] | int | None = None, reset_state_ids: Sequence[int] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts episodes, the critic's history of the ones before dropped.

        Args:
            env_idx: Which envs; None means all.
            reset_state_ids: Their starts, by RLinf's numbers; None takes what is next.

        Raises:
            ConfigError: An evaluation has fewer starts than envs.
            SimulatorError: An env could not be started.
        """
        ids = list(range(self.num_envs)) if env_idx is None else np.atleast_1d(env_idx).tolist()
        if self.is_start:
            if self.options.is_eval:
                for states in self._states:
                    states.restart()
                self.update_reset_state_ids()
            self._group_starts = [list(starts) for starts in self._next_starts]
            self._num_started = [0] * self.num_envs
            self.is_start = False
        if reset_state_ids is not None:
            starts: list[ResetState | None] = [self._states[0].start_of(int(i)) for i in reset_state_ids]
        else:
            starts = [self._next_start(i) for i in ids]
        if None in starts:
            raise ConfigError(
                f"Expected at least one start for each env of an evaluation, got {self.num_envs} envs and fewer "
                "starts. Lower env.eval.total_num_envs or raise the number of tasks."
            )
        observations = self._begin(dict(zip(ids, starts, strict=True)))  # type: ignore[arg-type]
        return self._observation(observations), {}

    def chunk_step(self, chunk_actions: Any) -> ChunkReply:
        """Executes (N, T, A) actions, each env up to its episode's end.

        Returns:
            Observations after each step, None for all but the last, which alone is rendered; rewards float32
            (N, T), each at the step that earned it, NaN at one that ended an episode without a judgement where RLinf
            masks it (see `verl_env_adapter.rlinf.unjudged`); terminations and truncations bool (N, T); infos, empty
            for all but the last.

        Raises:
            AdapterContractError: Actions of another shape or not finite; nothing was executed.
            CriticError: With ``on_error: raise``.
            CircuitBreakerError: More was lost to the critic than ``on_error`` allows: the run stops.
        """
        chunks = check_actions(
            chunk_actions,
            num_envs=self.num_envs,
            action_size=int(self._envs.single_action_space.shape[-1]),  # type: ignore[index]
            max_chunk=self.options.settings.env.chunk,
            where="RLinf's chunk_step",
        )
        if None in self._episodes:
            raise AdapterContractError("Expected a reset of all envs before RLinf's chunk_step.")
        result = self._envs.step_chunk(chunks)
        width = chunks.shape[1]
        were_judged = [episode is not None and episode.is_judged for episode in self._episodes]
        episodes = self._note(result, width)
        rewards = torch.from_numpy(result.rewards.astype(np.float32))
        if self.options.masks_unjudged:
            ended = [
                was and not episode.is_judged for was, episode in zip(were_judged, episodes, strict=True)
            ]
            mark(rewards, result.executed_steps.tolist(), ended)
        terminations, truncations = end_flags(
            episodes,
            result.executed_steps.tolist(),
            width,
            step_limit=self.options.max_episode_steps if self.options.ignore_terminations else None,
            in_last_column=self.options.auto_reset or self.options.ignore_terminations,
        )
        info: dict[str, Any] = {"episode": self._metrics(episodes)}
        observation = self._observation(result.observations)
        are_over = (terminations | truncations)[:, -1]
        if self.options.auto_reset and are_over.any():
            observation, info = self._restart(are_over, observation, info)
        return (
            [None] * (width - 1) + [observation],
            rewards,
            torch.from_numpy(terminations),
            torch.from_numpy(truncations),
            [{} for _ in range(width - 1)] + [info],
        )

    def step(
        self, actions: Any, auto_reset: bool = True
    ) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """One action for each env, (N, A); with `auto_reset` as configured.

        Raises:
            AdapterContractError: ``auto_reset=False`` where the config says otherwise.
        """
        if self.options.auto_reset and not auto_reset:
            raise AdapterContractError("Expected chunks through chunk_step, got step(auto_reset=False).")
        observations, rewards, terminations, truncations, infos = self.chunk_step(
            np.asarray(actions)[:, None]
        )
        return observations[-1], rewards[:, 0], terminations[:, 0], truncations[:, 0], infos[-1]

    def close(self) -> None:
        """Ends the worker processes, and the critic; safe to call twice."""
        self._envs.close()
        close_critics(self._critic, self._policy)

    def _next_start(self, env_id: int) -> ResetState | None:
        starts = self._group_starts[env_id // self.options.group_size]
        states = self._states[env_id * len(self._states) // self.num_envs]
        k = self._num_started[env_id]
        while len(starts) <= k:
            starts.append(states.next_groups(1)[0])
        self._num_started[env_id] += 1
        return starts[k]

    def _begin(self, starts: dict[int, ResetState]) -> Any:
        """Resets these envs; returns all envs' observations."""
        options: dict[str, Any] = {}
        every = range(self.num_envs)
        if len(starts) < self.num_envs:
            options["reset_mask"] = np.array([i in starts for i in every])
        if self.options.settings.env.is_libero:
            options["task_id"] = [starts[i].task_id if i in starts else None for i in every]
            options["init_state_id"] = [starts[i].init_state_id if i in starts else None for i in every]
        seeds = [starts[i].seed if i in starts else None for i in every]
        observations, infos = self._envs.reset(seed=seeds, options=options)
        for i, info in enumerate(unstack_infos(infos, self.num_envs)):
            if i in starts:
                self._episodes[i] = EpisodeTally(starts[i], self.options.mode, str(info.get("task", "")))
        return observations

    def _note(self, result: ChunkResult, width: int) -> list[EpisodeTally]:
        episodes = [episode for episode in self._episodes if episode is not None]
        infos = unstack_infos(result.infos, self.num_envs)
        for i, (episode, info) in enumerate(zip(episodes, infos, strict=True)):
            episode.commanded_steps += width
            episode.take(
                result.rewards[i, : result.executed_steps[i]],
                terminated=bool(result.terminations[i]),
                truncated=bool(result.truncations[i]),
                success=result.successes[i],
                info=info,
            )
        return episodes

    def _metrics(self, episodes: Sequence[EpisodeTally]) -> dict[str, torch.Tensor]:
        metrics = episode_metrics(episodes, self.options.mode, self._envs.critic_counters)
        return {key: torch.from_numpy(value) for key, value in metrics.items()}

    def _restart(
        self, ended: NDArray[np.bool_], observation: dict[str, Any], info: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts the ended envs anew; what the episode ended with stays in the info."""
        starts = {i: self._next_start(i) for i in np.flatnonzero(ended).tolist()}
        for i, start in starts.items():
            episode = self._episodes[i]
            if start is None and episode is not None:
                episode.is_spare = True
        begin = {i: start for i, start in starts.items() if start is not None}
        after = self._observation(self._begin(begin)) if begin else observation
        mask = ended.copy()
        return after, {
            "final_observation": observation,
            "final_info": info,
            "_final_info": mask,
            "_final_observation": mask,
            "_elapsed_steps": mask,
        }

    def _observation(self, batch: dict[str, NDArray[Any]]) -> dict[str, Any]:
        table = {theirs: ours for theirs, ours in _IMAGES.items() if theirs == "main_images" or ours in batch}
        pictures = rename_keys(batch, table, "RLinf")
        observation: dict[str, Any] = {
            name: torch.from_numpy(stack_images(list(rows), ImageConvention.RAW_ROTATED_180, name))
            for name, rows in pictures.items()
        }
        states = rename_keys(batch, {"states": "state"}, "RLinf")["states"]
        observation["states"] = torch.from_numpy(stack_vectors(list(states), "states"))
        observation["task_descriptions"] = self.task_descriptions
        return observation
