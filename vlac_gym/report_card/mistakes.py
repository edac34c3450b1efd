"""The critic's worst mistakes as film strips: `Mistake`, `worst_mistakes`, `film_strip`."""

__all__ = ["Mistake", "StripFrame", "film_strip", "worst_mistakes"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vlac_gym.data.episodes import Episode
from vlac_gym.frames.codec import encode_frame
from vlac_gym.report_card.episode_answers import EpisodeAnswers
from vlac_gym.report_card.termination import Checks, Stop, StopRule, apply_rule

_LATE_STEPS = 10
_STEPS_BEFORE, _STEPS_AFTER = 30, 12


@dataclass(frozen=True)
class Mistake:
    """One thing the critic got wrong.

    Attributes:
        kind: `"false stop"`, `"premature stop"`, `"missed success"`, `"late stop"`, `"failure valued high"`.
        index: The episode's position in the dataset.
        episode_id: Its id.
        step: Env step around which it shows.
        severity: How wrong, larger is worse; comparable within a kind.
        text: One sentence.
    """

    kind: str
    index: int
    episode_id: str
    step: int
    severity: float
    text: str


@dataclass(frozen=True)
class StripFrame:
    """One picture of a film strip.

    Attributes:
        step: Env step.
        jpeg: Compressed picture.
        success_prob: The critic's score, None where it was not asked.
        success: The simulator's verdict.
        is_event: Whether the mistake shows here.
    """

    step: int
    jpeg: bytes
    success_prob: float | None
    success: bool
    is_event: bool


def worst_mistakes(judged: Sequence[EpisodeAnswers], rule: StopRule, per_kind: int = 2) -> list[Mistake]:
    """The worst of each kind under a rule, in the order of `Mistake.kind` above."""
    found: dict[str, list[Mistake]] = {name: [] for name in _KINDS}
    for episode in judged:
        stop = apply_rule(episode.checks, rule)
        for name, look in _KINDS.items():
            mistake = look(episode, stop)
            if mistake is not None:
                found[name].append(
                    Mistake(name, episode.index, episode.meta.episode_id, mistake[0], mistake[1], mistake[2])
                )
    return [m for group in found.values() for m in sorted(group, key=lambda m: -m.severity)[:per_kind]]


def film_strip(
    episode: Episode, checks: Checks, step: int, *, count: int = 8, camera: str | None = None
) -> list[StripFrame]:
    """Frames spread over the 30 steps before a step and the 12 after it, that step's own frame among them."""
    steps = episode.frame_steps
    inside = np.flatnonzero((steps >= step - _STEPS_BEFORE) & (steps <= step + _STEPS_AFTER))
    event = int(inside[np.argmin(np.abs(steps[inside] - step))])
    spread = inside[np.linspace(0, inside.size - 1, min(count, inside.size)).round().astype(int)]
    nearest = int(np.argmin(np.abs(spread - event)))
    spread[nearest] = event
    score = dict(zip(checks.steps.tolist(), checks.probs.tolist()))
    view = episode.view(camera)
    return [
        StripFrame(
            step=int(steps[i]),
            jpeg=encode_frame(view[int(i)], "jpeg", 85),
            success_prob=score.get(int(steps[i])),
            success=bool(episode.success[steps[i]]),
            is_event=int(i) == event,
        )
        for i in spread
    ]


_Found = tuple[int, float, str] | None


def _false_stop(episode: EpisodeAnswers, stop: Stop) -> _Found:
    if stop.step is None or stop.first_success_step is not None:
        return None
    best = float(np.nanmax(episode.checks.probs))
    return stop.step, best, f"stopped at step {stop.step}; the simulator never sees success"


def _premature_stop(episode: EpisodeAnswers, stop: Stop) -> _Found:
    if stop.step is None or stop.first_success_step is None or not stop.is_false:
        return None
    early = stop.first_success_step - stop.step
    return stop.step, float(early), f"stopped at step {stop.step}, {early} steps before success"


def _missed_success(episode: EpisodeAnswers, stop: Stop) -> _Found:
    first = stop.first_success_step
    if stop.step is not None or first is None:
        return None
    after = episode.checks.probs[episode.checks.steps >= first]
    best = float(np.nanmax(after)) if np.isfinite(after).any() else 0.0
    return first, 1.0 - best, f"success at step {first} is never called; best score after it {best:.2f}"


def _late_stop(episode: EpisodeAnswers, stop: Stop) -> _Found:
    delay = stop.delay_steps
    if stop.step is None or delay is None or delay <= _LATE_STEPS:
        return None
    return stop.step, float(delay), f"stopped {delay} steps after success at step {stop.first_success_step}"


def _failure_valued_high(episode: EpisodeAnswers, stop: Stop) -> _Found:
    value = episode.final_value
    if episode.succeeds or not value >= 0.5:
        return None
    return episode.checks.num_steps, value, f"ends in failure with value {value:.2f}"


_KINDS: dict[str, Callable[[EpisodeAnswers, Stop], _Found]] = {
    "false stop": _false_stop,
    "premature stop": _premature_stop,
    "missed success": _missed_success,
    "late stop": _late_stop,
    "failure valued high": _failure_valued_high,
}
