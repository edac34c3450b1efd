"""Initial states for `AsyncRollout`, and what came of them: `draw_states`, `success_rates`."""

__all__ = ["draw_states", "success_rates"]

from collections.abc import Iterable, Sequence

import numpy as np

from vlac_gym.rollout.playing import PlayedEpisode


def draw_states(states: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """Draws `count` of these states, none twice until all were drawn.

    Args:
        states: What is drawn from.
        count: 0 or more.
        rng: Decides.
    """
    drawn = [rng.permutation(states) for _ in range(-(-count // len(states)))]
    return [int(state) for permutation in drawn for state in permutation][:count]


def success_rates(episodes: Iterable[PlayedEpisode], names: Sequence[str]) -> dict[str, float | None]:
    """Simulator success of these episodes.

    Args:
        episodes: As `AsyncRollout` plays them.
        names: Of each env's task.

    Returns:
        `eval/success_rate` and `eval/success_rate_NAME` (None without episodes), `eval/episodes` and, of those that
        were lost with their simulator and count nowhere else, `eval/lost_episodes`.
    """
    successes: dict[str, list[float]] = {name: [] for name in names}
    lost = 0
    for episode in episodes:
        lost += episode.is_lost
        if not episode.is_lost:
            success = bool(episode.finished.sim_success)
            successes[names[episode.finished.env_index]].append(float(success))
    every = [success for own in successes.values() for success in own]
    rates = {
        f"eval/success_rate_{name}": float(np.mean(own)) if own else None for name, own in successes.items()
    }
    return {
        "eval/success_rate": float(np.mean(every)) if every else None,
        "eval/episodes": float(len(every)),
        "eval/lost_episodes": float(lost),
        **rates,
    }
