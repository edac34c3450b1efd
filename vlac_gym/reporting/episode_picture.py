"""What plots and videos show of an episode, driven or scored: `EpisodePicture`, `picture_of_trace`, `picture_of_score`.

numpy only; `curves` and `video` draw it.
"""

__all__ = ["COLORS", "EpisodePicture", "Series", "ShownVerdict", "picture_of_score", "picture_of_trace"]

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vlac_gym.errors import ConfigError
from vlac_gym.reporting.trace import EpisodeTrace
from vlac_gym.rule.episode_score import EpisodeScore
from vlac_gym.types import Frame

COLORS = {
    "success_prob": "#2563eb",
    "value": "#d97706",
    "sim": "#15803d",
    "progress": "#0f766e",
    "regress": "#b91c1c",
    "muted": "#6b7280",
    "ink": "#111827",
    "grid": "#e5e7eb",
}
"""Curve name -> sRGB colour, the same in plots, videos and pages."""

_LIBERO_ACTION = ("move x", "move y", "move z", "turn x", "turn y", "turn z", "gripper")
"""robosuite's OSC_POSE: displacement and axis-angle rotation of the hand, then the gripper (1 closes it)."""


@dataclass(frozen=True)
class Series:
    """Numbers along an episode.

    Attributes:
        at: Number of the frame that each belongs to, rising; 0 is the first.
        values: The numbers.
    """

    at: Sequence[int] = ()
    values: Sequence[float] = ()

    def __len__(self) -> int:
        return len(self.at)

    def latest(self, now: int) -> float | None:
        """The last number up to frame `now`, None before the first."""
        count = bisect.bisect_right(self.at, now)
        return self.values[count - 1] if count else None


@dataclass(frozen=True)
class ShownVerdict:
    """What the critic or the simulator says of the episode, as it runs.

    Attributes:
        at: Frame at which it says yes, None if it never does.
        color: A key of `COLORS`.
        label: Text beside the mark at `at`.
        reached: Line of text from `at` on.
        waiting: Line of text before.
        never: Line of text at the last frame if `at` is None.
        linestyle: matplotlib's, of the mark.
    """

    at: int | None
    color: str
    label: str
    reached: str
    waiting: str
    never: str
    linestyle: Any = "-"

    def line(self, now: int, last: int) -> str:
        """The line of text at frame `now` of an episode whose last frame is `last`."""
        if self.at is not None and now >= self.at:
            return self.reached
        return self.never if now == last else self.waiting


@dataclass(frozen=True)
class EpisodePicture:
    """One episode as plots and videos show it.

    Attributes:
        task: Instruction text.
        last: Number of the last frame; the first is 0.
        success_prob: The critic's answers to done checks.
        values: Its completion values.
        verdicts: One line of text each, and a mark where it says yes.
        frames: `last + 1` pictures, or none.
        wrist_frames: `last + 1` pictures of the wrist camera, or none; videos show them beside `frames`.
        goal_progress: The simulator's own measure; empty if there is none.
        progress: Pairwise progress of neighbouring frames of `values`, at the second of each; empty if not shown.
        returns: Sum of rewards so far; empty if nothing was paid.
        actions: What the policy sent, by the name of each dimension; empty if the actions are no vectors of one length.
        threshold: `success_prob` that counts as done, None if none is shown.
        unit: What frames are counted in: `step` or `frame`.
        critic: Whose curves these are, for the legend; empty if it needs no saying.
        value_note: What else the legend says of the values.

    Raises:
        ConfigError: Another number of frames.
    """

    task: str
    last: int
    success_prob: Series
    values: Series
    verdicts: tuple[ShownVerdict, ...]
    frames: tuple[Frame, ...] = ()
    wrist_frames: tuple[Frame, ...] = ()
    goal_progress: Series = Series()
    progress: Series = Series()
    returns: Series = Series()
    actions: Mapping[str, Series] = field(default_factory=dict)
    threshold: float | None = None
    unit: str = "step"
    critic: str = ""
    value_note: str = ""

    def __post_init__(self) -> None:
        for name, frames in (("frames", self.frames), ("wrist frames", self.wrist_frames)):
            if frames and len(frames) != self.last + 1:
                raise ConfigError(
                    f"Expected {self.last + 1} {name} (the first and one per {self.unit}), got {len(frames)}."
                )

    def readout(self, now: int) -> list[tuple[str, str]]:
        """Text and colour of the numbers at frame `now`."""
        cells = [
            (f"{self.unit} {now} / {self.last}", COLORS["ink"]),
            (f"success_prob {_number(self.success_prob.latest(now))}", COLORS["success_prob"]),
            (f"value {_number(self.values.latest(now))}", COLORS["value"]),
        ]
        if self.returns:
            cells.append((f"return {self.returns.latest(now) or 0.0:.2f}", COLORS["ink"]))
        if self.progress:
            change = self.progress.latest(now)
            cells.append((f"progress {_number(change, '+.2f')}", progress_color(change)))
        return cells


def progress_color(change: float | None) -> str:
    """Colour of pairwise progress by its sign."""
    return COLORS["ink" if change is None else "regress" if change < 0 else "progress"]


def picture_of_trace(trace: EpisodeTrace) -> EpisodePicture:
    """An episode that was driven in an env."""
    critic, is_eval = trace.critic, trace.mode == "eval"
    paid = itertools.accumulate(step.reward for step in trace.steps)
    moved = [(s.step, s.goal_progress) for s in trace.steps if s.goal_progress is not None]
    return EpisodePicture(
        task=trace.task,
        last=trace.num_steps,
        success_prob=Series(*trace.success_probs),
        values=Series(critic.value_frame_steps, critic.values),
        verdicts=(_critics_verdict(trace), _simulators_verdict(trace)),
        frames=trace.frames,
        wrist_frames=trace.wrist_frames,
        goal_progress=Series([step for step, _ in moved], [progress for _, progress in moved]),
        returns=Series([step.step for step in trace.steps], list(paid)),
        actions=_actions(trace),
        threshold=None if is_eval else critic.threshold,
        critic="privileged critic" if critic.is_privileged else "critic",
        value_note="not in the reward" if critic.values_for == "plot" else "",
    )


def picture_of_score(score: EpisodeScore, frames: Sequence[Frame]) -> EpisodePicture:
    """An episode that a critic scored from its frames.

    Raises:
        ConfigError: `frames` are not the scored ones.
    """
    if len(frames) != score.num_frames:
        raise ConfigError(f"Expected the {score.num_frames} frames that were scored, got {len(frames)}.")
    done = score.first_done_frame
    verdict = ShownVerdict(
        at=done,
        color="success_prob",
        label=f"critic: done at frame {done}",
        reached=f"critic: DONE at frame {done}",
        waiting="critic: not done yet",
        never="critic: not done at any frame",
    )
    return EpisodePicture(
        task=score.task,
        last=score.num_frames - 1,
        success_prob=Series(score.check_frames, score.success_prob.tolist()),
        values=Series(score.value_frames, score.values.tolist()),
        verdicts=(verdict,),
        frames=tuple(frames),
        progress=Series(score.value_frames[1:], score.progress.tolist()),
        threshold=score.done_threshold,
        unit="frame",
    )


def _actions(trace: EpisodeTrace) -> dict[str, Series]:
    sizes = {len(step.action) for step in trace.steps}
    if len(sizes) != 1:
        return {}
    (size,) = sizes
    is_liberos = trace.task_suite is not None and size == len(_LIBERO_ACTION)
    names = _LIBERO_ACTION if is_liberos else [f"action {number}" for number in range(size)]
    at = [step.step for step in trace.steps]
    return {name: Series(at, [step.action[i] for step in trace.steps]) for i, name in enumerate(names)}


def _critics_verdict(trace: EpisodeTrace) -> ShownVerdict:
    done = trace.critic_done_step
    waiting, never = "critic: not done yet", "critic: not done when the episode ended"
    if trace.mode == "eval":
        waiting = never = "critic: not asked in eval mode"
    elif trace.critic.name == "none":
        waiting = never = "critic: none"
    return ShownVerdict(
        at=done,
        color="success_prob",
        label=f"critic: done at step {done}",
        reached=f"critic: DONE at step {done}",
        waiting=waiting,
        never=never,
    )


def _simulators_verdict(trace: EpisodeTrace) -> ShownVerdict:
    success = trace.sim_success_step
    return ShownVerdict(
        at=success,
        color="sim",
        label=f"simulator: success at step {success}",
        reached=f"simulator: SUCCESS at step {success}",
        waiting="simulator: no success yet",
        never="simulator: no success in this episode",
        linestyle=(0, (4, 3)),  # dashes let the critic's line show through when both fall on one step
    )


def _number(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form)
