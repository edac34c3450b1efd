"""What a critic says about recorded episodes: `judge_episode`, `judge_episodes`, `EpisodeAnswers`, `shown_frames`.

A privileged critic gets frames with the simulator's signals, as in a running episode.
"""

__all__ = [
    "EpisodeAnswers",
    "check_indices",
    "judge_episode",
    "judge_episodes",
    "shown_frames",
    "value_indices",
]

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlac_gym.critic.base import Critic
from vlac_gym.critic.signals import EpisodeSignals
from vlac_gym.data.episodes import Episode, EpisodeMeta
from vlac_gym.data.verdicts import HAS_VERDICT
from vlac_gym.report_card.asking import AskedCritic
from vlac_gym.report_card.references import ReferencePicker
from vlac_gym.report_card.statistics import Array
from vlac_gym.report_card.termination import Checks
from vlac_gym.types import Frame


@dataclass(frozen=True)
class EpisodeAnswers:
    """One recorded episode with the critic's opinions.

    Attributes:
        index: Position in the dataset.
        meta: What the episode is.
        checks: Done checks at every recorded frame after the reset.
        goal_progress: float (T + 1,), the dense truth at every step; NaN where a verdict is all that is known.
        value_steps: int (V,), steps of the value list's frames; first 0, last T.
        values: float (V,), the critic's value list, what training pays at the step limit.
        forward: float (V - 1,), progress of each pair of neighbouring value frames.
        backward: float (V - 1,), progress of the same pairs swapped.
        value_s: How long the value list took, s.
        num_references: One-shot reference frames that its values and pairs were judged with.
    """

    index: int
    meta: EpisodeMeta
    checks: Checks
    goal_progress: Array
    value_steps: NDArray[np.int64]
    values: Array
    forward: Array
    backward: Array
    value_s: float
    num_references: int = 0

    @property
    def task_key(self) -> str:
        """Suite and task, the unit of the bootstrap."""
        return self.checks.cluster

    @property
    def ends_in_success(self) -> bool:
        """Whether the goal holds at the last step."""
        return bool(self.checks.success[-1])

    @property
    def succeeds(self) -> bool:
        """Whether the goal held at any step."""
        return bool(self.checks.success.any())

    @property
    def final_value(self) -> float:
        """The last value; NaN if the critic gave no usable answer."""
        return float(self.values[-1])

    @property
    def truth_changes(self) -> Array:
        """float (V - 1,), change of the dense truth over each pair."""
        return np.diff(self.goal_progress[self.value_steps])

    @property
    def until_success(self) -> int:
        """How many value frames lead up to the first success, that frame included; all if there is none."""
        first = self.checks.first_success_step
        if first is None:
            return len(self.value_steps)
        return min(int(np.searchsorted(self.value_steps, first)) + 1, len(self.value_steps))


def check_indices(episode: Episode, check_interval: int) -> NDArray[np.int64]:
    """Frames at which the critic is asked: one each `check_interval` steps or more, and the last; never the reset."""
    return _thin(episode.frame_steps, check_interval)[1:]


def value_indices(episode: Episode, value_stride: int) -> NDArray[np.int64]:
    """Frames of the value list: the first, one each `value_stride` steps or more, and the last."""
    return _thin(episode.frame_steps, value_stride)


def _known_progress(episode: Episode) -> Array:
    progress = episode.goal_progress.astype(np.float64)
    return np.full_like(progress, np.nan) if episode.meta.details.get(HAS_VERDICT) else progress


def judge_episode(
    asked: AskedCritic,
    episode: Episode,
    *,
    index: int = 0,
    camera: str | None = None,
    check_interval: int = 1,
    value_stride: int = 5,
    references: ReferencePicker | None = None,
) -> EpisodeAnswers:
    """Asks the critic about one episode: done checks, the value list, and each pair both ways.

    Args:
        asked: The critic.
        episode: At least one step long.
        index: Its position in the dataset, kept in the result.
        camera: Which recorded camera to show; the first by default.
        check_interval: Least number of steps between two checks.
        value_stride: Least number of steps between two frames of the value list.
        references: Finds one-shot references for values and pairs; None judges without.
    """
    task = episode.meta.task
    at_checks = check_indices(episode, check_interval)
    at_values = value_indices(episode, value_stride)
    indices = sorted({*at_checks.tolist(), *at_values.tolist()})
    frames = shown_frames(asked.critic, episode, indices, camera=camera, index=index)
    probs = asked.success_prob([frames[i] for i in at_checks], [task] * len(at_checks))
    listed = [frames[i] for i in at_values]
    tasks = [task] * (len(listed) - 1)
    shown = None if references is None else references.frames_for(episode.meta)
    start = time.perf_counter()
    values = asked.value(listed, task, shown)
    value_s = time.perf_counter() - start
    return EpisodeAnswers(
        index=index,
        meta=episode.meta,
        checks=Checks(
            steps=episode.frame_steps[at_checks].astype(np.int64),
            probs=probs,
            success=episode.success,
            cluster=f"{episode.meta.task_suite}/{episode.meta.task_id}",
        ),
        goal_progress=_known_progress(episode),
        value_steps=episode.frame_steps[at_values].astype(np.int64),
        values=values,
        forward=asked.progress(listed[:-1], listed[1:], tasks, shown),
        backward=asked.progress(listed[1:], listed[:-1], tasks, shown),
        value_s=value_s,
        num_references=0 if shown is None else len(shown),
    )


def judge_episodes(
    asked: AskedCritic,
    episodes: Iterable[Episode],
    *,
    camera: str | None = None,
    check_interval: int = 1,
    value_stride: int = 5,
    references: ReferencePicker | None = None,
    visit: Callable[[Episode, EpisodeAnswers], None] | None = None,
) -> Iterator[EpisodeAnswers]:
    """Judges episodes one after the other; `visit` sees each while its frames and signals are still at hand."""
    for index, episode in enumerate(episodes):
        if episode.num_steps == 0:
            continue
        judged = judge_episode(
            asked,
            episode,
            index=index,
            camera=camera,
            check_interval=check_interval,
            value_stride=value_stride,
            references=references,
        )
        if visit is not None:
            visit(episode, judged)
        yield judged


def shown_frames(
    critic: Critic, episode: Episode, indices: Iterable[int], *, camera: str | None, index: int = 0
) -> dict[int, Frame]:
    """Recorded frames as the critic is shown them: a privileged one with the simulator's signals.

    Args:
        critic: Who will be asked.
        episode: The recording.
        indices: Which frames, in order.
        camera: Of which camera.
        index: The episode's position in the dataset, which errors on purpose depend on.
    """
    view = episode.view(camera)
    if not critic.describe().is_privileged:
        return {i: view[i] for i in indices}
    signals = EpisodeSignals(episode=index)
    return {i: signals.attach(view[i], episode.info_at(int(episode.frame_steps[i]))) for i in indices}


def _thin(steps: NDArray[np.int32], interval: int) -> NDArray[np.int64]:
    kept = [0]
    for i in range(1, len(steps)):
        if steps[i] - steps[kept[-1]] >= interval or i == len(steps) - 1:
            kept.append(i)
    return np.array(kept, np.int64)
