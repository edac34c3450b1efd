"""Many envs at once, for rollouts that look only now and then: `RolloutVectorEnv`."""

__all__ = ["RolloutVectorEnv"]

import weakref
from collections.abc import Mapping, Sequence
from copy import deepcopy
from multiprocessing.connection import Connection
from typing import Any, Unpack

import numpy as np
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError
from vlac_gym.stepping.actions import checked_actions, checked_chunks, checked_mask
from vlac_gym.stepping.inner_wrappers import episode_enders
from vlac_gym.vector.commands import (
    Command,
    Failure,
    Lost,
    Reply,
    ResetCommand,
    ResetReply,
)
from vlac_gym.vector.config import VectorConfig, VectorOptions
from vlac_gym.vector.env_access import EnvAccess
from vlac_gym.vector.executor import EnvFactory, Executor, InlineExecutor
from vlac_gym.vector.observations import copy_row, copy_rows, read_row
from vlac_gym.vector.process_executor import ProcessExecutor
from vlac_gym.vector.ready_first import ReadyFirst
from vlac_gym.vector.referee import Referee, SimulatorReferee
from vlac_gym.vector.reset_commands import EpisodeOptions, EpisodeStarts
from vlac_gym.vector.slot import EnvSpaces
from vlac_gym.vector.step_loop import StepLoop
from vlac_gym.vector.step_result import ChunkResult

StepResult = tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]


class RolloutVectorEnv(ReadyFirst, EnvAccess):
    """N envs, each in a worker process that stays or all in this one; observations through shared memory.

    It is a Gymnasium vector env in all three autoreset modes, with these additions and one difference:

    - `send` and `recv` step whichever envs are ready; see `ReadyFirst`.
    - `step_chunk` runs up to T actions per env and looks once, in all envs or only in some. Envs with
      `step_unrendered` (LIBERO) render nothing in between.
    - A worker that dies or misses its deadline is replaced, and so is a simulator that fails. The episode
      is *lost*: truncated, reward 0.0, ``infos["lost"][i]`` True (False in any other case), `lost_reason`
      in its info, and nothing else there. It says nothing about success; leave it out of statistics. One that a critic
      ended in the middle of a chunk keeps its verdict; if the worker died before the last look, `look_lost` in its
      info says why, and of the last observation only the critic's picture is fresh.
    - DISABLED: an env whose episode is over idles until `reset` with ``options["reset_mask"]``: it is not
      stepped, its reward is 0.0, it has no info, and its `terminations` and `truncations` stay as they were.

    **Reset** gives env i the seed ``seed + i // group_size``. Options that are lists, tuples or arrays are
    dealt out to envs, one entry each (or to groups): ``{"task_id": [0, 1], "init_state_id": [3, None]}``.
    With ``group_size=G``, G neighbours start every episode with the same seed and options, in lockstep since
    the last `reset`, for algorithms that compare rollouts of one start.

    Args:
        env_fns: Build the envs; each is called in the process that uses it. The first is also called here, to
            read the spaces, and that env is closed at once.
        mode: `async` for worker processes, `sync` for this process, or what makes workers elsewhere.
        autoreset_mode: When an env is reset whose episode is over.
        group_size: Neighbours that play the same start.
        envs_per_worker: Envs per process; envs of one LIBERO task share the compiled model there.
        context: How workers start. Both need ``if __name__ == "__main__":`` in the script.
        start_timeout_s: Deadline of a reset, in s; it may have to build a simulator.
        step_timeout_s: Deadline of a step or chunk, in s.
        max_restarts: Times a worker is replaced in a row without a successful reset in between.
        render_devices: EGL devices that workers render on in turn, by MuJoCo's numbers, e.g. ``(1, 3)``; None for every
            visible GPU (those of `CUDA_VISIBLE_DEVICES`). A `MUJOCO_EGL_DEVICE_ID` that is set holds for all workers.
        pin_workers: Keep each worker on one of the cores that this process may use, in turn.
        worker_niceness: By how much worker processes are less urgent to the system than this one (`os.nice`), so that a
            critic that runs here answers sooner where they keep all cores busy (docs/performance.md).
        episode_options: Called here with the env's index before each automatic reset; returns its options.
        copy: Return copies of the observations; False returns the shared arrays, overwritten by the next step.

    Attributes:
        shares_host: The envs run in this process or in its worker processes; False if `mode` makes workers elsewhere.

    Raises:
        ConfigError: An argument does not fit, and no process was started; or workers can't start, as in a script
            without ``if __name__ == "__main__":``.

    Example:
        >>> from vlac_gym.envs.scripted import ScriptedEnv
        >>> env = RolloutVectorEnv([ScriptedEnv] * 2, mode="sync")
        >>> observations, infos = env.reset(seed=0)
        >>> observations["agentview_image"].shape
        (2, 8, 8, 3)
        >>> env.step(env.action_space.sample())[1].tolist()
        [0.0, 0.0]
        >>> env.close()
    """

    def __init__(self, env_fns: Sequence[EnvFactory], **options: Unpack[VectorOptions]) -> None:
        if not env_fns:
            raise ConfigError("Expected at least one env factory, got none.")
        config = VectorConfig(**options)
        self.env_fns = tuple(env_fns)
        self.num_envs = len(env_fns)
        self.autoreset_mode = AutoresetMode(config.autoreset_mode)
        self.group_size = config.group_size
        self.shares_host = not callable(config.mode)
        self._group_rng = np.random.default_rng()  # draws the seeds that a group shares
        self._starts = EpisodeStarts(self.num_envs, config.group_size, config.episode_options)
        self._read_spaces(env_fns[0])
        self.copies_observations = config.copy
        self._executor = self._started_executor(config)
        self._close_executor = weakref.finalize(
            self, self._executor.close
        )  # also at exit, if nobody calls close
        self._has_started = np.zeros(self.num_envs, np.bool_)
        self._out: set[int] = set()  # envs that carry out a command
        self.loop = StepLoop(self, self.autoreset_mode)

    # Gymnasium's interface.

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode in every env, or in those of ``options["reset_mask"]``; see the class.

        Raises:
            ConfigError: A seed or an option does not fit.
            AlreadyPendingCallError: A step is under way.
            SimulatorError: An env could not be started.
        """
        return self.loop.reset(SimulatorReferee(), self.loop.reset_commands(seed=seed, options=options))

    def step(self, actions: NDArray[Any]) -> StepResult:
        """One action for each env; see the class.

        Raises:
            ConfigError: Actions of a wrong shape or not finite; nothing has moved.
            ResetNeeded: An env was never reset.
        """
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Begins a step; `step_wait` returns it."""
        rows = [[action] for action in checked_actions(actions, self.action_space, self.num_envs)]
        self.loop.begin(rows, checked_mask(None, self.num_envs))

    def step_wait(self) -> StepResult:
        """Ends the step that `step_async` began."""
        return self.step_chunk_wait().first_step()

    def step_chunk(self, actions: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> ChunkResult:
        """Up to T actions for each env, (N, T, A); an env stops where its episode ends, and is looked at once.

        Args:
            actions: T >= 1.
            mask: bool (N,), the envs to step; None for all. The others are left untouched, over or not: 0 executed
                steps, no info, no automatic reset, terminations and truncations as they were.

        Raises:
            ConfigError: Actions of a wrong shape or not finite, or no such mask; nothing has moved.
        """
        self.step_chunk_async(actions, mask)
        return self.step_chunk_wait()

    def step_chunk_async(self, actions: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Begins a chunk; `step_chunk_wait` returns it."""
        chosen = checked_mask(mask, self.num_envs)
        shape = self.single_action_space.shape or ()
        self.loop.begin(checked_chunks(actions, self.num_envs, shape), chosen)

    def step_chunk_wait(self) -> ChunkResult:
        """Ends the chunk that `step_chunk_async` began."""
        return self.loop.finish()

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the workers and closes the envs."""
        self.loop.close()
        self._close_executor()

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers; empty in ``mode="sync"``."""
        return self._executor.pids

    # What `loop` asks of the envs; see `Envs`.

    def reset_commands(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> dict[int, ResetCommand]:
        """The commands of `reset`, checked; `options` is left as it is."""
        if isinstance(seed, int):
            self._group_rng = np.random.default_rng(seed)
        commands = self._starts.chosen(seed, options, self._group_rng)
        if not (self._has_started | np.isin(np.arange(self.num_envs), list(commands))).all():
            raise ConfigError(
                "Expected a reset of all envs first, got a reset_mask that leaves some unstarted."
            )
        return commands

    def autoreset_commands(self, indices: Sequence[int]) -> dict[int, ResetCommand]:
        """The commands of an automatic reset of some envs."""
        return self._starts.automatic(indices)

    def set_episode_options(self, episode_options: EpisodeOptions) -> None:
        """Has `episode_options` asked from now on; refuses to take over from another one."""
        if self._starts.episode_options is not None:
            raise ConfigError("This vector env has its episode_options already. Leave them out of make_vec.")
        self._starts.episode_options = episode_options

    def execute(self, commands: Mapping[int, Command]) -> dict[int, Reply]:
        """Carries out commands by env index: `submit`, then `collect`."""
        self.require_idle()
        self.submit(commands)
        return self.collect()

    def submit(self, commands: Mapping[int, Command]) -> None:
        """Hands out commands, to envs that have none."""
        if self.closed or self._out & commands.keys():
            self.require_idle()
        self._executor.submit(commands)
        self._out |= commands.keys()

    def collect(self) -> dict[int, Reply]:
        """All replies by env index; a `Lost` is noted, and what failed otherwise is raised."""
        self._out.clear()
        try:
            replies = self._executor.collect()
        except BaseException:
            self._has_started[:] = False  # some envs may have moved on: only a full reset brings order
            raise
        return self._noted(replies)

    def collect_ready(self, timeout_s: float | None, wake: Connection) -> dict[int, Reply]:
        """The replies that are there, as from `collect`; see `Executor.collect_ready`."""
        try:
            replies = self._executor.collect_ready(timeout_s, wake)
        except BaseException:
            self._has_started[:] = False
            raise
        self._out -= replies.keys()
        return self._noted(replies)

    def abandon(self) -> None:
        """Forgets the commands that are out."""
        self._out.clear()
        self._executor.abandon()

    def _noted(self, replies: dict[int, Reply]) -> dict[int, Reply]:
        for i, reply in replies.items():
            if isinstance(reply, Lost):
                self._starts.note_loss(i)
        for i, reply in replies.items():
            if isinstance(reply, Failure):
                self._has_started[:] = False
                raise reply.exception(i)
        self._has_started[[i for i, reply in replies.items() if isinstance(reply, ResetReply)]] = True
        return replies

    def observation(self, index: int) -> Any:
        """Env `index`'s latest observation: views that its next command overwrites."""
        return read_row(self._executor.batch, index)

    def observations(self, indices: Sequence[int] | None = None) -> Any:
        """Latest observations, of all envs or, copied in any case, of some."""
        if indices is not None:
            return copy_rows(self._executor.batch, indices)
        return deepcopy(self._executor.batch) if self.copies_observations else self._executor.batch

    def final_observation(self, index: int) -> Any:
        """A copy of env `index`'s latest observation."""
        return copy_row(self._executor.batch, index)

    def require_idle(self) -> None:
        """Raises `AlreadyPendingCallError` while commands are out, whoever sent them, and if the env is closed."""
        if self.closed:
            raise ClosedEnvironmentError("This vector env is closed. Make a new one.")
        if self._out:
            raise AlreadyPendingCallError("A step is under way. Call step_wait first.", "step")

    def require_started(self) -> None:
        """Raises `ResetNeeded` unless every env was reset since the last error."""
        if not self._has_started.all():
            missing = np.flatnonzero(~self._has_started).tolist()
            raise ResetNeeded(f"Envs {missing} have no episode. Call reset() before stepping.")

    @property
    def _step_loop(self) -> StepLoop:
        return self.loop

    def _reset_command(self, index: int, seed: int | None, options: Mapping[str, Any] | None) -> ResetCommand:
        return self._starts.single(index, seed, options)

    def _referee_of_next_episodes(self) -> Referee:
        return SimulatorReferee()

    def _started_executor(self, config: VectorConfig) -> Executor:
        spaces = EnvSpaces(self.single_observation_space, self.single_action_space)
        if config.mode == "sync":
            return InlineExecutor(self.env_fns, spaces)
        if config.mode == "async":
            return ProcessExecutor(self.env_fns, spaces, config)
        return config.mode(
            self.env_fns,
            spaces,
            start_timeout_s=config.start_timeout_s,
            step_timeout_s=config.step_timeout_s,
            max_restarts=config.max_restarts,
        )

    def _read_spaces(self, env_fn: EnvFactory) -> None:
        env = env_fn()
        self.metadata = dict(env.metadata) | {"autoreset_mode": self.autoreset_mode}
        self.render_mode = env.render_mode
        self.spec = env.spec
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.episode_enders = episode_enders(env)
        env.close()
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
