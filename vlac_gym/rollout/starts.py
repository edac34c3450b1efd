"""Episodes from chosen initial states, side by side: `play_starts`, `played_episodes`, `draw_starts`, `deal_starts`.

For training loops that must know which episode began where: held-out states, groups that share a start, runs that go on
from a checkpoint with the same numbers.
"""

__all__ = [
    "PlayedEpisode",
    "PlayedStep",
    "deal_starts",
    "draw_starts",
    "parse_states",
    "play_starts",
    "played_episodes",
    "success_rates",
]

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError
from vlac_gym.types import Mode
from vlac_gym.vector.finished import EpisodeLog, FinishedEpisode, reward_wrapper_of


@dataclass(frozen=True)
class PlayedStep:
    """One vector step of N envs.

    Attributes:
        is_playing: bool (N,), the envs whose episode this step belongs to; the others idle.
        rewards: float64 (N,).
        executed_steps: int64 (N,), env steps.
        ended: The episodes that ended in it.
        critic_s: Longest that one env waited for the critic, in s; the time of the critic's calls where a step asks
            about all envs at once.
        env_s: The rest of the step's time, in s, with the resets that followed it (and, of the first, that before it).
    """

    is_playing: NDArray[np.bool_]
    rewards: NDArray[np.float64]
    executed_steps: NDArray[np.int64]
    ended: tuple[FinishedEpisode, ...]
    critic_s: float
    env_s: float


@dataclass(frozen=True)
class PlayedEpisode:
    """One episode of `play_starts`.

    Attributes:
        finished: How it ended.
        round: How many episodes its env had played before it, lost ones included.
        steps: The numbers of its vector steps, in order.
    """

    finished: FinishedEpisode
    round: int
    steps: tuple[int, ...]


def parse_states(text: str) -> list[int]:
    """`0-3,7` -> [0, 1, 2, 3, 7].

    Raises:
        ConfigError: It is no such list, or names a state twice.
    """
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        raise ConfigError(f"Expected initial states as '0-24' or '0,3,7-9', got {text!r}.")
    ranges = (part.partition("-") for part in text.split(","))
    states = [n for low, _, high in ranges for n in range(int(low), int(high or low) + 1)]
    if not states or len(set(states)) < len(states):
        raise ConfigError(f"Expected each initial state once, got {text!r}.")
    return states


def draw_starts(
    states: Sequence[int], num_envs: int, episodes_per_env: int, group_size: int, rng: np.random.Generator
) -> list[list[int]]:
    """Draws `episodes_per_env` states for each of `num_envs` envs of one task; none twice until all were drawn.

    Args:
        states: What is drawn from.
        num_envs: A multiple of `group_size`.
        episodes_per_env: >= 1.
        group_size: Neighbouring envs that share their starts.
        rng: Decides.
    """
    count = num_envs // group_size * episodes_per_env
    drawn = np.concatenate([rng.permutation(states) for _ in range(-(-count // len(states)))])[:count]
    own = drawn.reshape(-1, episodes_per_env).tolist()
    return [list(starts) for starts in own for _ in range(group_size)]


def deal_starts(states: Sequence[int], num_envs: int) -> list[list[int]]:
    """Every state once, dealt out in turn to `num_envs` envs of one task; some may get none."""
    return [list(states[i::num_envs]) for i in range(num_envs)]


def play_starts(
    env: VectorEnv[Any, Any, Any],
    starts: Sequence[Sequence[int]],
    act: Callable[[Any], NDArray[Any]],
    *,
    mode: Mode,
    seed: int,
) -> Iterator[PlayedStep]:
    """Plays `starts[i]`, initial state ids, one after another in env i, all envs side by side, to their ends.

    An env that is done with its starts, or has none, idles until all are. An episode that is lost with its worker ends
    as such and is not played again.

    Args:
        env: The vector `VLACRewardWrapper`, or `ActionChunk` around it, over a `RolloutVectorEnv` with
            ``autoreset_mode="Disabled"``.
        starts: One list per env.
        act: Observations of all envs to their actions.
        mode: Of the episodes.
        seed: Of the first reset.

    Raises:
        ConfigError: Another number of lists, or another autoreset mode; nothing was reset.
    """
    if len(starts) != env.num_envs or env.metadata["autoreset_mode"] is not AutoresetMode.DISABLED:
        raise ConfigError(
            f"Expected a list of starts for each of {env.num_envs} envs with autoreset_mode 'Disabled', got "
            f"{len(starts)} lists and {env.metadata['autoreset_mode']}."
        )
    return _play(env, [list(own) for own in starts], act, mode, seed)


def played_episodes(steps: Sequence[PlayedStep]) -> list[PlayedEpisode]:
    """The episodes of a whole `play_starts`, in the order in which they ended, each with the steps that made it."""
    running: dict[int, list[int]] = {}
    rounds: dict[int, int] = {}
    episodes = []
    for number, step in enumerate(steps):
        for i in np.flatnonzero(step.is_playing).tolist():
            running.setdefault(i, []).append(number)
        for finished in step.ended:
            i = finished.env_index
            episodes.append(PlayedEpisode(finished, rounds.get(i, 0), tuple(running.pop(i))))
            rounds[i] = rounds.get(i, 0) + 1
    return episodes


def success_rates(steps: Iterable[PlayedStep], names: Sequence[str]) -> dict[str, float | None]:
    """Simulator success of the episodes of `play_starts`, which is run to its end.

    Args:
        steps: What it yields.
        names: Of each env's task.

    Returns:
        `eval/success_rate` and `eval/success_rate_NAME` (None without episodes), `eval/episodes` and, of those that
        were lost with their simulator and count nowhere else, `eval/lost_episodes`.
    """
    ended = [episode for step in steps for episode in step.ended]
    successes: dict[str, list[float]] = {name: [] for name in names}
    for episode in ended:
        if not episode.is_lost:
            successes[names[episode.env_index]].append(float(bool(episode.sim_success)))
    every = [success for own in successes.values() for success in own]
    rates = {
        f"eval/success_rate_{name}": float(np.mean(own)) if own else None for name, own in successes.items()
    }
    return {
        "eval/success_rate": float(np.mean(every)) if every else None,
        "eval/episodes": float(len(every)),
        "eval/lost_episodes": float(len(ended) - len(every)),
        **rates,
    }


def _play(
    env: VectorEnv[Any, Any, Any], queues: list[list[int]], act: Callable[[Any], Any], mode: Mode, seed: int
) -> Iterator[PlayedStep]:
    is_playing = np.array([bool(queue) for queue in queues])
    began = time.perf_counter()
    options = {"mode": mode, "init_state_id": [queue.pop(0) if queue else None for queue in queues]}
    observations, _ = env.reset(seed=seed, options=options)
    reset_s = time.perf_counter() - began
    log = EpisodeLog(env)
    judged = reward_wrapper_of(env)
    while is_playing.any():
        actions = act(observations)
        began = time.perf_counter()
        observations, rewards, terminations, truncations, infos = env.step(actions)
        ended = log.add(rewards, terminations, truncations, infos)
        mine = tuple(episode for episode in ended if is_playing[episode.env_index])
        critic_s = 0.0 if judged is None else _longest_s(judged.critic_latency_ms)
        over = np.zeros(env.num_envs, np.bool_)
        over[[episode.env_index for episode in mine]] = True
        goes_on = over & np.array([bool(queue) for queue in queues])
        if goes_on.any():
            states = [queue.pop(0) if chosen else None for queue, chosen in zip(queues, goes_on)]
            observations, _ = env.reset(options={"reset_mask": goes_on, "init_state_id": states})
            log.begin(goes_on)
        executed = infos["chunk"]["executed_steps"] if "chunk" in infos else np.ones(env.num_envs, np.int64)
        env_s = reset_s + time.perf_counter() - began - critic_s
        yield PlayedStep(is_playing.copy(), rewards, executed, mine, critic_s, env_s)
        reset_s = 0.0
        is_playing = is_playing & (~over | goes_on)


def _longest_s(latencies_ms: NDArray[np.float64]) -> float:
    return 0.0 if np.isnan(latencies_ms).all() else float(np.nanmax(latencies_ms)) / 1e3
