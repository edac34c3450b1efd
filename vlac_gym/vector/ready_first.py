"""Stepping whichever envs are ready: `ReadyFirst`, `ReadyStep`, `ReadyChunk`."""

__all__ = ["EnvIds", "ReadyChunk", "ReadyFirst", "ReadyStep"]

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError
from vlac_gym.stepping.actions import as_array, checked_actions, checked_chunks
from vlac_gym.vector.commands import ResetCommand
from vlac_gym.vector.referee import Referee
from vlac_gym.vector.step_loop import StepLoop
from vlac_gym.vector.step_result import ChunkResult

EnvIds = Sequence[int] | NDArray[np.integer[Any]]


class ReadyStep(NamedTuple):
    """What K envs returned that were ready; rows in the order of `env_ids`.

    Attributes:
        env_ids: int64 (K,), ascending.
        observations: K of them; the first of the new episode after a reset.
        rewards: float64 (K,); 0.0 after a reset.
        terminations: bool (K,).
        truncations: bool (K,).
        infos: Vector infos of K envs, with `lost` (bool (K,)).
    """

    env_ids: NDArray[np.int64]
    observations: Any
    rewards: NDArray[np.float64]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    infos: dict[str, Any]


class ReadyChunk(NamedTuple):
    """As `ReadyStep`, for chunks.

    Attributes:
        env_ids: int64 (K,), ascending.
        result: Of these envs; its T is that of the longest chunk.
    """

    env_ids: NDArray[np.int64]
    result: ChunkResult


class ReadyFirst:
    """A vector env's interface for envs that each go at their own pace, as in EnvPool (arXiv 2206.10558).

    `send` hands actions to some envs, `recv` returns those that are ready, and no env waits for another: not at a
    step's end, not for the critic, not for a reset. What an episode returns is what it returns from `step`; only
    which rows come together depends on timing. Questions to the critic that come up while it is busy are asked
    together when it is free, one call at a time or, of a critic with `takes_concurrent_calls`, one of each kind; it
    answers in threads, while envs move and the caller works. `recv` is what takes envs from one part of a step to the
    next: call it often.

    Automatic resets are as for `step`: under SAME_STEP a row that ended holds the next episode's first observation,
    under NEXT_STEP the next `send` to that env resets it, under DISABLED `send_reset` does.
    """

    single_action_space: spaces.Space[Any]
    num_envs: int

    def send(self, actions: Any, env_ids: EnvIds) -> None:
        """Begins one step in some envs; returns at once.

        Args:
            actions: One per env: (K, A), or as the action space of K envs has them.
            env_ids: K different envs, each received since it was last sent anything.

        Raises:
            ConfigError: Actions or envs that don't fit, or an env's episode is over under DISABLED; nothing has moved.
            ResetNeeded: An env has no episode.
            AlreadyPendingCallError: An env is under way.
        """
        ids = self._checked_ids(env_ids)
        space = self.single_action_space
        if isinstance(space, spaces.Box):
            array, shape = as_array(actions), (len(ids), *space.shape)
            if array.shape != shape:
                raise ConfigError(f"Expected actions of shape {shape}, got {array.shape}; nothing moved.")
            rows: Sequence[Any] = checked_chunks(array[:, None], len(ids), space.shape)
        else:
            rows = [[a] for a in checked_actions(actions, batch_space(space, len(ids)), len(ids))]
        self._step_loop.send(dict(zip(ids, rows, strict=True)))

    def send_chunks(self, actions: NDArray[Any], env_ids: EnvIds) -> None:
        """Begins a chunk in some envs; as `send`, with actions (K, T, A)."""
        ids = self._checked_ids(env_ids)
        rows: Sequence[Any] = checked_chunks(actions, len(ids), self.single_action_space.shape or ())
        self._step_loop.send(dict(zip(ids, rows, strict=True)))

    def send_reset(
        self,
        env_ids: EnvIds,
        *,
        seeds: Sequence[int | None] | None = None,
        options: Sequence[Mapping[str, Any] | None] | None = None,
        episode_ids: Sequence[int] | None = None,
    ) -> None:
        """Begins an episode in some envs; `recv` returns its first observation.

        Args:
            env_ids: K different envs, running or over, each received since it was last sent anything.
            seeds: K of them.
            options: K of them.
            episode_ids: K of them: what a privileged critic that draws random numbers knows the episodes by, so that
                its draws don't depend on which env plays which; None for each env's own count.

        Raises:
            ConfigError: Another number of them.
            AlreadyPendingCallError: An env is under way.
        """
        ids = self._checked_ids(env_ids)
        for name, given in (("seeds", seeds), ("options", options), ("episode_ids", episode_ids)):
            if given is not None and len(given) != len(ids):
                raise ConfigError(f"Expected {len(ids)} {name}, one per env, got {len(given)}.")
        commands = {
            i: self._reset_command(i, seeds[k] if seeds else None, options[k] if options else None)
            for k, i in enumerate(ids)
        }
        numbers = {} if episode_ids is None else dict(zip(ids, episode_ids, strict=True))
        self._step_loop.send_reset(self._referee_of_next_episodes(), commands, numbers)

    def recv(self, min_ready: int = 1, timeout_s: float | None = None) -> ReadyStep:
        """Waits until `min_ready` envs are ready, or all that are under way; returns all that are.

        Args:
            min_ready: 1 for whatever comes first; more for larger batches.
            timeout_s: Return what is ready after this time, maybe nothing (K = 0); None waits, with the vector env's
                own deadlines for workers.

        Raises:
            NoAsyncCallError: No env is under way.
            CriticError: With ``on_critic_error="raise"``; all episodes are lost.
            CircuitBreakerError: As for `step` of the reward wrapper.
            SimulatorError: An env or its worker can't go on; all episodes are lost.
        """
        env_ids, result = self.recv_chunks(min_ready, timeout_s)
        return ReadyStep(env_ids, *result.first_step())

    def recv_chunks(self, min_ready: int = 1, timeout_s: float | None = None) -> ReadyChunk:
        """As `recv`, for what `send_chunks` began."""
        if min_ready < 1:
            raise ConfigError(f"Expected min_ready >= 1, got {min_ready}.")
        indices, result = self._step_loop.receive(min_ready, timeout_s)
        return ReadyChunk(np.array(indices, np.int64), result)

    def interrupt_recv(self) -> None:
        """Has a `recv` that waits, else the next one, return what is ready, maybe nothing (K = 0).

        The one method here that another thread may call while `recv` waits: to have more sent without delay.
        """
        self._step_loop.interrupt()

    @property
    @abstractmethod
    def _step_loop(self) -> StepLoop:
        """Steps the envs.

        Raises:
            ConfigError: They only step all at once.
        """

    @abstractmethod
    def _reset_command(self, index: int, seed: int | None, options: Mapping[str, Any] | None) -> ResetCommand:
        """The command of a reset of one env."""

    @abstractmethod
    def _referee_of_next_episodes(self) -> Referee:
        """Who settles the episodes that begin now."""

    def _checked_ids(self, env_ids: EnvIds) -> list[int]:
        ids = np.asarray(env_ids)
        is_known = ids.ndim == 1 and ids.dtype.kind in "iu" and ((ids >= 0) & (ids < self.num_envs)).all()
        if not is_known or len(set(ids.tolist())) != len(ids) or not len(ids):
            raise ConfigError(
                f"Expected env_ids as different ints in 0..{self.num_envs - 1}, got {env_ids!r}."
            )
        return [int(i) for i in ids]
