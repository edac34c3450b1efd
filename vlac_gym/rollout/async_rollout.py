"""Rollouts in which no env waits for another, and whose results don't depend on timing: `AsyncRollout`."""

__all__ = ["AsyncRollout", "BatchPolicy", "StepBuffer"]

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from gymnasium.error import NoAsyncCallError
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError, VlacGymError
from vlac_gym.rollout.playing import Episode, EpisodeStart, PlayedEpisode, PolicyRow
from vlac_gym.vector.infos import unstack_infos
from vlac_gym.vector.observations import copy_row, stack_rows
from vlac_gym.vector.ready_first import ReadyStep
from vlac_gym.vector.rollout_env import RolloutVectorEnv
from vlac_gym.wrappers.vector.action_chunk import ActionChunk
from vlac_gym.wrappers.vector.vlac_reward import VLACRewardWrapper


class BatchPolicy(Protocol):
    """What drives the envs, here or on a server; called by one thread."""

    def __call__(self, observations: Any, rows: Sequence[PolicyRow]) -> NDArray[Any]:
        """Actions (K, …) for K observations, whose rows say which episodes they are of."""
        ...


@dataclass(frozen=True)
class StepBuffer:
    """T steps (or chunks) of each of N lanes, across the ends of episodes.

    Attributes:
        observations: T lists of N: what the policy saw.
        actions: (T, N, …).
        rewards: float64 (T, N).
        terminations: bool (T, N).
        truncations: bool (T, N).
        lost: bool (T, N): the episode ended there with its worker.
        episodes: int64 (T, N): number of the episode.
        infos: T lists of N, of each step.
        next_observations: T lists of N: what each step led to, at an episode's end its last observation.
    """

    observations: list[list[Any]]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    episodes: NDArray[np.int64]
    infos: list[list[dict[str, Any]]]
    next_observations: list[list[Any]]


class AsyncRollout:
    """Plays numbered episodes in whichever env is free, and hands them out in the order of their numbers.

    How an episode begins and what its policy draws are functions of its number, never of the env that plays it or of
    what came first. So equal seeds give equal episodes, bit for bit, however fast envs, critic and policy are and
    however batches fall; a worker that dies delays its episodes: they are repeated by the actions already taken, and
    the policy isn't asked again. This needs

    - a policy whose answer for a row depends on that row alone: its observation, and draws from ``row.rng``. A
      network's matrix products may round differently in batches of another size, and batch normalisation in training
      mode or one generator for all rows do depend on the batch: such a policy gives valid episodes, but not the same
      ones again;
    - a critic that is as deterministic per frame, and answers (failed calls concern whoever was asked about together);
    - an env whose reset with a seed forgets what was played before, as LIBERO's does.

    Args:
        env: A `RolloutVectorEnv`, or `VLACRewardWrapper` and `ActionChunk` around it, with
            ``autoreset_mode="Disabled"`` and ``group_size=1``.
        policy: See `BatchPolicy`.
        starts: The start of group g; None for seed ``seed + g`` without options.
        seed: Of the episodes' generators, and of the starts where `starts` is None.
        group_size: Episodes ``g * group_size`` to ``(g + 1) * group_size - 1`` share a start, as for GRPO.
        min_ready: How many envs should be ready before the policy is asked; fewer if no more are under way.
        max_repeats: How often an episode is repeated that was lost; beyond that it is `is_lost`.

    Raises:
        ConfigError: An argument does not fit.

    Example:
        >>> from vlac_gym.envs.scripted import ScriptedEnv
        >>> env = RolloutVectorEnv([ScriptedEnv] * 2, mode="sync", autoreset_mode="Disabled")
        >>> rollout = AsyncRollout(env, lambda observations, rows: np.zeros((len(rows), 7)), group_size=2)
        >>> [(e.index, e.group, e.start.seed, len(e.rewards)) for e in rollout.episodes(4)]
        [(0, 0, 0, 10), (1, 0, 0, 10), (2, 1, 1, 10), (3, 1, 1, 10)]
    """

    def __init__(
        self,
        env: RolloutVectorEnv | VLACRewardWrapper | ActionChunk,
        policy: BatchPolicy,
        *,
        starts: Callable[[int], EpisodeStart] | None = None,
        seed: int = 0,
        group_size: int = 1,
        min_ready: int = 1,
        max_repeats: int = 3,
    ) -> None:
        base = getattr(env, "unwrapped", None)
        if not isinstance(env, RolloutVectorEnv | VLACRewardWrapper | ActionChunk) or not isinstance(
            base, RolloutVectorEnv
        ):
            raise ConfigError(
                f"Expected an env from make_vec, VLACRewardWrapper or ActionChunk around it, got {env}."
            )
        if base.autoreset_mode is not AutoresetMode.DISABLED or base.group_size != 1:
            raise ConfigError(
                "Expected autoreset_mode='Disabled' and group_size=1, as the rollout resets envs itself, got "
                f"{base.autoreset_mode.value!r} and {base.group_size}."
            )
        for name, value, low in (
            ("group_size", group_size, 1),
            ("min_ready", min_ready, 1),
            ("max_repeats", max_repeats, 0),
        ):
            if value < low:
                raise ConfigError(f"Expected {name} >= {low}, got {value}.")
        self.env = env
        self.policy = policy
        self._starts = starts or (lambda group: EpisodeStart(seed + group))
        self._seed = seed
        self._group_size = group_size
        self._min_ready = min_ready
        self._max_repeats = max_repeats
        self._next = 0
        self._lanes: dict[int, Episode] = {}
        self._playing: dict[int, Episode] = {}

    def episodes(self, count: int) -> Iterator[PlayedEpisode]:
        """Plays the next `count` episodes, and yields them in the order of their numbers.

        Leaving the iterator early drops what has not been yielded; numbers go on after all `count`.

        Raises:
            ConfigError: `count` is no multiple of the group size.
            CriticError: Like any other exception of an env or the policy: what was not yielded is lost.
        """
        if count < 1 or count % self._group_size:
            raise ConfigError(f"Expected a count that is a multiple of {self._group_size}, got {count}.")
        first, self._next, self._lanes = self._next, self._next + count, {}
        return self._in_order(first, first + count)

    def groups(self, count: int) -> Iterator[list[PlayedEpisode]]:
        """Plays the next `count` groups; each comes whole, in order."""
        episodes = self.episodes(count * self._group_size)
        for first in episodes:
            yield [first, *(next(episodes) for _ in range(self._group_size - 1))]

    def steps(self, num_steps: int) -> StepBuffer:
        """Plays `num_steps` of each of N lanes; the next call goes on where this one stopped.

        Lane n plays the episodes n, n + N, n + 2N, … from where the numbers were at the first call, one after the
        other.

        Raises:
            ConfigError: `num_steps` < 1, or lanes are not whole groups.
            CriticError: As for `episodes`; the lanes begin anew at the next call.
        """
        count = self.env.num_envs
        if num_steps < 1 or count % self._group_size:
            raise ConfigError(
                f"Expected num_steps >= 1 and lanes ({count}) in groups of {self._group_size}, got {num_steps}."
            )
        rows: list[list[tuple[Episode, int]]] = [[] for _ in range(count)]
        if not self._lanes:
            self._lanes = {n: self._episode(self._next + n) for n in range(count)}
            self._next += count
        lanes, self._lanes = self._lanes, {}

        def following(n: int, ended: Episode) -> Episode | None:
            lanes[n] = self._episode(ended.index + count)
            self._next = max(self._next, lanes[n].index + 1)
            return lanes[n] if len(rows[n]) < num_steps else None

        ended = self._play(
            dict(lanes),
            following,
            note=lambda n, episode: rows[n].append((episode, len(episode.rewards) - 1)),
            goes_on=lambda n: len(rows[n]) < num_steps,
        )
        for _ in ended:
            pass
        self._lanes = lanes
        return _buffer(rows)

    def _in_order(self, first: int, end: int) -> Iterator[PlayedEpisode]:
        numbers = iter(range(first, end))
        envs = range(min(self.env.num_envs, end - first))
        begun = {i: self._episode(index) for i, index in zip(envs, numbers, strict=False)}

        def following(i: int, ended: Episode) -> Episode | None:
            index = next(numbers, None)
            return None if index is None else self._episode(index)

        done: dict[int, PlayedEpisode] = {}
        for episode in self._play(begun, following):
            done[episode.index] = episode.played()
            while first in done:
                yield done.pop(first)
                first += 1

    def _play(
        self,
        episodes: dict[int, Episode],
        following: Callable[[int, Episode], Episode | None],
        note: Callable[[int, Episode], None] = lambda i, episode: None,
        goes_on: Callable[[int], bool] = lambda i: True,
    ) -> Iterator[Episode]:
        """Plays until no env is under way, and yields episodes as they end.

        Args:
            episodes: By env, begun or not.
            following: What an env plays after an episode; None ends its part.
            note: Called after each step that was new.
            goes_on: Whether an env may take another step.
        """
        try:
            self._begin({i: episode for i, episode in episodes.items() if not episode.observations})
            self._act({i: episode for i, episode in episodes.items() if episode.observations})
            while self._playing:
                ended = []
                waiting: dict[int, Episode] = {}
                fresh: dict[int, Episode] = {}
                for i, episode, is_new in self._received():
                    if is_new and episode.rewards:
                        note(i, episode)
                    if episode.is_over:
                        ended.append(episode)
                        if (next_one := following(i, episode)) is not None:
                            fresh[i] = next_one
                    elif goes_on(i) or episode.repeated_action is not None:
                        waiting[i] = episode
                self._begin(fresh)
                self._act(waiting)
                yield from ended
        finally:
            self._drain()

    def _received(self) -> Iterator[tuple[int, Episode, bool]]:
        """Envs that are ready, with whether that is news; what was lost begins again."""
        batch = self.env.recv(self._min_ready)
        infos = unstack_infos(batch.infos, len(batch.env_ids))
        for k, i in enumerate(batch.env_ids.tolist()):
            episode = self._playing.pop(i)
            if not batch.infos["lost"][k]:
                yield i, episode, episode.take(*_row(batch, k), infos[k])
            elif episode.losses < self._max_repeats:
                episode.losses += 1
                self._begin({i: episode})
            else:
                episode.give_up(infos[k])
                yield i, episode, True

    def _begin(self, episodes: dict[int, Episode]) -> None:
        if not episodes:
            return
        for episode in episodes.values():
            episode.begin()
        played = list(episodes.values())
        self.env.send_reset(
            list(episodes),
            seeds=[episode.start.seed for episode in played],
            options=[episode.start.options for episode in played],
            episode_ids=[episode.index for episode in played],
        )
        self._playing |= episodes

    def _act(self, episodes: dict[int, Episode]) -> None:
        """Repeats actions where that is needed, and asks the policy about all others."""
        for i, episode in episodes.items():
            if (action := episode.repeated_action) is not None:
                self._send([i], action[None], {i: episode})
        asking = {i: episode for i, episode in sorted(episodes.items()) if i not in self._playing}
        if not asking:
            return
        observations = stack_rows([episode.observations[-1] for episode in asking.values()])
        actions = np.asarray(self.policy(observations, [episode.row() for episode in asking.values()]))
        if len(actions) != len(asking):
            raise ConfigError(
                f"Expected {len(asking)} rows of actions from the policy, got shape {actions.shape}."
            )
        self._send(list(asking), actions, asking)
        for episode, action in zip(asking.values(), actions, strict=True):
            episode.actions.append(action)

    def _send(self, env_ids: list[int], actions: NDArray[Any], episodes: dict[int, Episode]) -> None:
        self.env.send(actions, env_ids)
        self._playing |= episodes

    def _drain(self) -> None:
        """Takes envs back that are under way, after a rollout that was left early or failed."""
        playing, self._playing = self._playing, {}
        if playing:
            with contextlib.suppress(NoAsyncCallError, VlacGymError):  # what failed has been raised
                self.env.recv(len(playing))

    def _episode(self, index: int) -> Episode:
        group = index // self._group_size
        return Episode(index, group, self._starts(group), np.random.default_rng((self._seed, index)))


def _row(batch: ReadyStep, k: int) -> tuple[Any, float, bool, bool]:
    ends = bool(batch.terminations[k]), bool(batch.truncations[k])
    return copy_row(batch.observations, k), float(batch.rewards[k]), *ends


def _buffer(rows: list[list[tuple[Episode, int]]]) -> StepBuffer:
    steps = list(zip(*rows, strict=True))  # T of N

    def each(read: Callable[[Episode, int], Any]) -> list[list[Any]]:
        return [[read(episode, t) for episode, t in step] for step in steps]

    def is_last(episode: Episode, t: int) -> bool:
        return t + 1 == len(episode.rewards)

    return StepBuffer(
        observations=each(lambda e, t: e.observations[t]),
        actions=np.array(each(lambda e, t: e.actions[t])),
        rewards=np.array(each(lambda e, t: e.rewards[t]), np.float64),
        terminations=np.array(each(lambda e, t: is_last(e, t) and e.terminated), np.bool_),
        truncations=np.array(each(lambda e, t: is_last(e, t) and e.truncated), np.bool_),
        lost=np.array(each(lambda e, t: is_last(e, t) and e.is_lost), np.bool_),
        episodes=np.array(each(lambda e, t: e.index), np.int64),
        infos=each(lambda e, t: e.infos[t + 1]),
        next_observations=each(lambda e, t: e.observations[t + 1]),
    )
