"""What a critic would have paid for recorded episodes: `PaidEpisode`, `pay_episode`."""

__all__ = ["PaidEpisode", "done_checks", "pay_episode"]

import math
from dataclasses import dataclass

import numpy as np

from vlac_gym.data.episodes import Episode
from vlac_gym.report_card.asking import AskedCritic
from vlac_gym.report_card.episode_answers import check_indices, shown_frames, value_indices
from vlac_gym.report_card.termination import Checks, StopRule, apply_rule
from vlac_gym.rule.reward import TrainingRule


@dataclass(frozen=True)
class PaidEpisode:
    """One recorded episode as the critic would have ended and paid it.

    A script looks at no critic and acts the same up to the stop, so that the recording, judged afterwards, is the
    episode that training would have had, where the arm rests until the step limit.

    Attributes:
        episode_id: Which one.
        task: ``suite:id``.
        init_state_id: Its start.
        kind: How it was to fail.
        seed: Which variation.
        stop_step: Where the critic ends it; None if it doesn't.
        is_wrong: It is ended before the simulator saw success.
        failed: The simulator saw no success until its end, be that the critic's stop or the recording's.
        reward: 1.0 if the critic ends it, else the last entry of its value list; None if it gave no usable answer.
        goal_progress: The simulator's at the end.
    """

    episode_id: str
    task: str
    init_state_id: int
    kind: str
    seed: int
    stop_step: int | None
    is_wrong: bool
    failed: bool
    reward: float | None
    goal_progress: float


def done_checks(
    asked: AskedCritic, episode: Episode, rule: TrainingRule, *, index: int, camera: str | None
) -> Checks:
    """The critic's done checks of a recording, at the rule's interval or that of the recorded frames."""
    at = check_indices(episode, rule.done_interval)
    frames = shown_frames(asked.critic, episode, at.tolist(), camera=camera, index=index)
    return Checks(
        steps=episode.frame_steps[at].astype(np.int64),
        probs=asked.success_prob([frames[i] for i in at.tolist()], [episode.meta.task] * len(at)),
        success=episode.success,
        cluster=f"{episode.meta.task_suite}/{episode.meta.task_id}",
    )


def pay_episode(
    asked: AskedCritic, episode: Episode, rule: TrainingRule, *, index: int, camera: str | None = None
) -> PaidEpisode:
    """Ends and pays a recording by the rule.

    Args:
        asked: The critic.
        episode: At least one step long.
        rule: Threshold, patience, least steps, intervals.
        index: The episode's number, which a privileged critic's errors on purpose depend on.
        camera: The view to show; the first by default.
    """
    checks = done_checks(asked, episode, rule, index=index, camera=camera)
    stop = apply_rule(checks, StopRule(rule.done_threshold, rule.done_patience, rule.min_steps))
    end = episode.num_steps if stop.step is None else stop.step
    reward = 1.0
    if stop.step is None:
        at = value_indices(episode, rule.value_stride).tolist()
        frames = shown_frames(asked.critic, episode, at, camera=camera, index=index)
        reward = float(asked.value([frames[i] for i in at], episode.meta.task)[-1])
    meta = episode.meta
    return PaidEpisode(
        episode_id=meta.episode_id,
        task=f"{meta.task_suite}:{meta.task_id}",
        init_state_id=meta.init_state_id,
        kind=meta.imperfection,
        seed=meta.seed,
        stop_step=stop.step,
        is_wrong=stop.is_false,
        failed=not episode.success[: end + 1].any(),
        reward=reward if math.isfinite(reward) else None,
        goal_progress=float(episode.goal_progress[end]),
    )
