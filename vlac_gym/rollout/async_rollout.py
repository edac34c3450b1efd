"""Chosen starts played by whichever env is free, with results that don't depend on timing: `AsyncRollout`."""

__all__ = ["AsyncRollout", "BatchPolicy"]

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, Unpack

import numpy as np
from gymnasium.error import NoAsyncCallError
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError, VlacGymError
from vlac_gym.rollout.config import AsyncRolloutConfig, AsyncRolloutOptions
from vlac_gym.rollout.playing import EpisodeStart, PlayedEpisode, PolicyRow, RunningEpisode
from vlac_gym.rollout.start_queue import StartQueue, may_play
from vlac_gym.rollout.step_buffer import StepBuffer, step_buffer
from vlac_gym.vector.finished import reward_wrapper_of
from vlac_gym.vector.infos import unstack_infos
from vlac_gym.vector.observations import copy_row, stack_rows
from vlac_gym.vector.ready_first import ReadyStep
from vlac_gym.vector.rollout_env import RolloutVectorEnv
from vlac_gym.wrappers.vector.action_chunk import ActionChunk
from vlac_gym.wrappers.vector.vlac_reward import VLACRewardWrapper


class BatchPolicy(Protocol):
    """What drives the envs, here or on a server; called by one thread."""

    def __call__(self, observations: Any, rows: Sequence[PolicyRow]) -> NDArray[Any] | Sequence[NDArray[Any]]:
        """Actions for K observations, whose rows say which episodes they are of: an array (K, …), or K arrays, as for
        chunks of different lengths.
        """
        ...


class AsyncRollout:
    """Plays numbered episodes, each in whichever free env may play it.

    This is the one way here to play chosen starts in vector envs: `vlac-gym eval` and examples/train_ppo.py are made of
    it. How an episode begins and what its policy draws are functions of its number, never of the env that plays it or
    of what came first. So equal seeds give equal episodes, bit for bit, however fast envs, critic and policy are and
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
        starts: The start of group g, or a list of those of the first groups; None for seed ``seed + g``, no options.
        seed: Of the episodes' generators, and of the starts where `starts` is None.
        group_size: Episodes ``g * group_size`` to ``(g + 1) * group_size - 1`` share a start, as for GRPO.
        first_episode: Number of the first episode, a multiple of `group_size`: a run that goes on draws nothing twice.
        min_ready: How many envs should be ready before the policy is asked; fewer if no more are under way. With the
            number of envs (and, with a critic, ``ask_window_s=math.inf``) the batches are the same every time too: then
            episodes are the same again even where an answer depends on the batch, as long as no worker dies.
        max_repeats: How often an episode is repeated that was lost; beyond that it is `is_lost`, and where an env that
            does not repeat exactly, as worlds on a GPU, ends a repeat before it is where the episode was.
        mode: Of the reward wrapper, set before episodes begin, whatever is left of others; None leaves it as it is.
        keeps_observations: False forgets observations when the policy has seen them, but for each episode's last.

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
        **options: Unpack[AsyncRolloutOptions],
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
        config = AsyncRolloutConfig(**options)
        self._judged = reward_wrapper_of(env)
        if config.mode is not None and self._judged is None:
            raise ConfigError(
                f"Expected VLACRewardWrapper in an env that is to play in mode {config.mode!r}, got {env}."
            )
        self.env = env
        self.policy = policy
        self._config = config
        self._first = self._next = config.first_episode
        self._lanes: dict[int, RunningEpisode] = {}
        self._playing: dict[int, RunningEpisode] = {}

    def episodes(self, count: int | None = None, *, in_order: bool = True) -> Iterator[PlayedEpisode]:
        """Plays the next `count` episodes.

        An env goes on with the task that it has (`EpisodeStart.task_id`) while there are starts of it. Leaving the
        iterator early drops what has not been yielded; numbers go on after all `count`.

        Args:
            count: A multiple of the group size; None for all that are left of a list of starts.
            in_order: Yield them in the order of their numbers; False yields each as soon as it has ended.

        Raises:
            ConfigError: Another `count`, more than there are starts, or one that no env may play; nothing was begun.
            CriticError: Like any other exception of an env or the policy: what was not yielded is lost.
        """
        if count is None and isinstance(self._config.starts, Sequence):
            count = self._first + len(self._config.starts) * self._config.group_size - self._next
        if count is None or count < 1 or count % self._config.group_size:
            raise ConfigError(
                f"Expected a count that is a multiple of {self._config.group_size}, got {count}."
            )
        episodes = [self._episode(index) for index in range(self._next, self._next + count)]
        for episode in episodes:
            self._check_playable(episode)
        self._set_mode()
        self._next, self._lanes = self._next + count, {}
        played = self._as_they_end(StartQueue(episodes))
        return _in_order(played, episodes[0].index) if in_order else played

    def groups(self, count: int) -> Iterator[list[PlayedEpisode]]:
        """Plays the next `count` groups; each comes whole, in order."""
        episodes = self.episodes(count * self._config.group_size)
        for first in episodes:
            yield [first, *(next(episodes) for _ in range(self._config.group_size - 1))]

    def steps(self, num_steps: int) -> StepBuffer:
        """Plays `num_steps` of each of N lanes; the next call goes on where this one stopped.

        Lane n plays the episodes n, n + N, n + 2N, … from where the numbers were at the first call, one after the
        other, in env n.

        Raises:
            ConfigError: `num_steps` < 1, lanes are not whole groups, a start that its lane's env may not play,
                observations are not kept, or the policy gave actions of several shapes.
            CriticError: As for `episodes`; the lanes begin anew at the next call.
        """
        count = self.env.num_envs
        group_size, keeps = self._config.group_size, self._config.keeps_observations
        if num_steps < 1 or count % group_size or not keeps:
            raise ConfigError(
                f"Expected num_steps >= 1, lanes ({count}) in groups of {group_size}, and observations that are kept, "
                f"got {num_steps} and keeps_observations={keeps}."
            )
        rows: list[list[tuple[RunningEpisode, int]]] = [[] for _ in range(count)]
        if not self._lanes:
            self._set_mode()
            self._lanes = {n: self._of_lane(n, self._next + n) for n in range(count)}
            self._next += count
        lanes, self._lanes = self._lanes, {}

        def following(n: int, ended: RunningEpisode) -> RunningEpisode | None:
            lanes[n] = self._of_lane(n, ended.index + count)
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
        return step_buffer(rows)

    def _as_they_end(self, queue: StartQueue) -> Iterator[PlayedEpisode]:
        begun = {i: first for i in range(self.env.num_envs) if (first := queue.next(i)) is not None}
        for episode in self._play(begun, following=queue.next):
            yield episode.played()

    def _play(
        self,
        episodes: dict[int, RunningEpisode],
        following: Callable[[int, RunningEpisode], RunningEpisode | None],
        note: Callable[[int, RunningEpisode], None] = lambda i, episode: None,
        goes_on: Callable[[int], bool] = lambda i: True,
    ) -> Iterator[RunningEpisode]:
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
                waiting: dict[int, RunningEpisode] = {}
                fresh: dict[int, RunningEpisode] = {}
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

    def _received(self) -> Iterator[tuple[int, RunningEpisode, bool]]:
        """Envs that are ready, with whether that is news; what was lost begins again."""
        batch = self.env.recv(self._config.min_ready)
        infos = unstack_infos(batch.infos, len(batch.env_ids))
        for k, i in enumerate(batch.env_ids.tolist()):
            episode, is_lost = self._playing.pop(i), batch.infos["lost"][k]
            if (is_lost or infos[k].get("look_lost")) and episode.losses < self._config.max_repeats:
                episode.losses += 1
                self._begin({i: episode})
            elif is_lost:
                episode.give_up(infos[k])
                yield i, episode, True
            else:
                yield i, episode, episode.take(*_row(batch, k), infos[k], self._latency_ms(i))

    def _begin(self, episodes: dict[int, RunningEpisode]) -> None:
        if not episodes:
            return
        for i, episode in episodes.items():
            episode.begin(i)
        played = list(episodes.values())
        self.env.send_reset(
            list(episodes),
            seeds=[episode.start.seed for episode in played],
            options=[episode.start.options for episode in played],
            episode_ids=[episode.index for episode in played],
        )
        self._playing |= episodes

    def _act(self, episodes: dict[int, RunningEpisode]) -> None:
        """Repeats actions where that is needed, and asks the policy about all others."""
        for i, episode in episodes.items():
            if (action := episode.repeated_action) is not None:
                self._send([i], action[None], {i: episode})
        asking = {i: episode for i, episode in sorted(episodes.items()) if i not in self._playing}
        if not asking:
            return
        observations = stack_rows([episode.observations[-1] for episode in asking.values()])
        answer = self.policy(observations, [episode.row() for episode in asking.values()])
        actions = [np.asarray(action) for action in answer]
        if len(actions) != len(asking):
            raise ConfigError(f"Expected {len(asking)} rows of actions from the policy, got {len(actions)}.")
        alike: dict[tuple[int, ...], dict[int, NDArray[Any]]] = {}
        for i, action in zip(asking, actions, strict=True):
            alike.setdefault(action.shape, {})[i] = action
        for same in alike.values():
            self._send(list(same), np.stack(list(same.values())), {i: asking[i] for i in same})
        for episode, action in zip(asking.values(), actions, strict=True):
            episode.actions.append(action)

    def _send(self, env_ids: list[int], actions: NDArray[Any], episodes: dict[int, RunningEpisode]) -> None:
        self.env.send(actions, env_ids)
        self._playing |= episodes

    def _drain(self) -> None:
        """Takes envs back that are under way, after a rollout that was left early or failed."""
        playing, self._playing = self._playing, {}
        if playing:
            with contextlib.suppress(NoAsyncCallError, VlacGymError):  # what failed has been raised
                self.env.recv(len(playing))

    def _set_mode(self) -> None:
        if self._config.mode is not None and self._judged is not None:
            self._judged.set_mode(self._config.mode, abandon=True)

    def _latency_ms(self, i: int) -> float:
        return np.nan if self._judged is None else float(self._judged.critic_latency_ms[i])

    def _of_lane(self, n: int, index: int) -> RunningEpisode:
        episode = self._episode(index)
        if not may_play(n, episode):
            raise ConfigError(f"Expected a start that env {n} may play, got {episode.start}.")
        return episode

    def _check_playable(self, episode: RunningEpisode) -> None:
        if not any(may_play(i, episode) for i in range(self.env.num_envs)):
            raise ConfigError(
                f"Expected starts for some of {self.env.num_envs} envs, got {episode.start} for group {episode.group}."
            )

    def _episode(self, index: int) -> RunningEpisode:
        group = index // self._config.group_size
        rng = np.random.default_rng((self._config.seed, index))
        return RunningEpisode(
            index, group, self._start(group), rng, keeps_observations=self._config.keeps_observations
        )

    def _start(self, group: int) -> EpisodeStart:
        if self._config.starts is None:
            return EpisodeStart(self._config.seed + group)
        if callable(self._config.starts):
            return self._config.starts(group)
        number = group - self._first // self._config.group_size
        if number >= len(self._config.starts):
            raise ConfigError(
                f"Expected no more groups than the {len(self._config.starts)} starts, got number {number}."
            )
        return self._config.starts[number]


def _in_order(episodes: Iterable[PlayedEpisode], first: int) -> Iterator[PlayedEpisode]:
    done: dict[int, PlayedEpisode] = {}
    for episode in episodes:
        done[episode.index] = episode
        while first in done:
            yield done.pop(first)
            first += 1


def _row(batch: ReadyStep, k: int) -> tuple[Any, float, bool, bool]:
    ends = bool(batch.terminations[k]), bool(batch.truncations[k])
    return copy_row(batch.observations, k), float(batch.rewards[k]), *ends
