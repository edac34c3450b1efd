"""Putting the card together: `CardConfig`, `ReportCard`, `make_card`, `with_optimisation`."""

__all__ = ["CARD_VERSION", "CardConfig", "ReportCard", "make_card", "with_optimisation"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from vlac_gym import __version__
from vlac_gym.checks import check_unit
from vlac_gym.critic.base import Critic
from vlac_gym.critic.engines.cuda_memory import reset_cuda_memory_peak
from vlac_gym.critic.knowledge import OnMismatch
from vlac_gym.critic.wrapper import adapted
from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.errors import ConfigError
from vlac_gym.report_card.asking import AskedCritic, Call
from vlac_gym.report_card.cost import cost_section, gpu_memory, time_batches
from vlac_gym.report_card.episode_answers import EpisodeAnswers, judge_episodes
from vlac_gym.report_card.mistakes import Mistake, StripFrame, film_strip, worst_mistakes
from vlac_gym.report_card.optimisation import UnderOptimisation, optimisation_section
from vlac_gym.report_card.probes import ProbeResults, ProbeRunner
from vlac_gym.report_card.progress_section import progress_section
from vlac_gym.report_card.references import NUM_REFERENCES, ReferencePicker, require_references
from vlac_gym.report_card.robustness_section import robustness_section
from vlac_gym.report_card.sections import (
    Bootstrap,
    Section,
    detection_section,
    termination_section,
    training_section,
)
from vlac_gym.report_card.statistics import Estimate
from vlac_gym.report_card.sweep import StopTable, SweepPoint, cross_validate, recommend, rule_grid
from vlac_gym.report_card.termination import StopRule
from vlac_gym.report_card.unknowns import settle_unknowns
from vlac_gym.rule.calibration import Calibration
from vlac_gym.types import CriticInfo

CARD_VERSION = 1

_MISSES_TOO_MANY = 0.5


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """How a critic is measured.

    Attributes:
        done_threshold: Threshold of the metrics that need one, [0, 1]; 0.9 is the wrapper's default.
        done_patience: Patience of the rule whose stops are reported, >= 1.
        check_interval: Least number of steps between done checks, >= 1; frames between recorded ones do not exist.
        value_stride: Least number of steps between frames of the value list, >= 1.
        false_stop_budget: Largest rate of false stops that a recommended rule may have, [0, 1].
        camera: Recorded view to show; None for the first. Others are compared with it.
        batch_size: Most frames or pairs of one call.
        probe_episodes: Episodes to probe for robustness and consistency.
        cost_repeats: Timed calls of each kind and batch size, on new frames; 0 leaves them out.
        resamples: Of the bootstrap.
        seed: Of the bootstrap and the probes.

    Raises:
        ConfigError: A value is out of its range.
    """

    done_threshold: float = 0.9
    done_patience: int = 1
    check_interval: int = 1
    value_stride: int = 5
    false_stop_budget: float = 0.03
    camera: str | None = None
    batch_size: int = 32
    probe_episodes: int = 40
    cost_repeats: int = 5
    resamples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("done_threshold", "false_stop_budget"):
            check_unit(name, getattr(self, name))
        for name in ("done_patience", "check_interval", "value_stride", "batch_size", "resamples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected {name} >= 1, got {getattr(self, name)!r}.")
        if self.cost_repeats < 0:
            raise ConfigError(f"Expected cost_repeats >= 0, got {self.cost_repeats!r}.")


@dataclass(frozen=True)
class ReportCard:
    """A finished card.

    Attributes:
        content: What `card.json` holds.
        judged: Every episode with the critic's opinions, for plots.
        points: The threshold sweep; empty if there was none.
        mistakes: The worst mistakes under the recommended rule, each with its film strip.
        timed: Calls by batch size on new frames; empty if there were none.
        attacked: What a search against the critic came to; None if there was none.
    """

    content: Mapping[str, Any]
    judged: Sequence[EpisodeAnswers]
    points: Sequence[SweepPoint]
    mistakes: Sequence[tuple[Mistake, Sequence[StripFrame]]]
    timed: Sequence[Call] = ()
    attacked: UnderOptimisation | None = None


def make_card(
    critic: Critic,
    spec: str,
    dataset: EpisodeDataset,
    config: CardConfig | None = None,
    on_episode: Callable[[EpisodeAnswers], None] | None = None,
    references: EpisodeDataset | None = None,
    on_critic_mismatch: OnMismatch = "raise",
) -> ReportCard:
    """Asks the critic about every episode and measures it against the simulator.

    Args:
        critic: Who is measured.
        spec: What `make_critic` was given, kept in the card.
        dataset: Recorded episodes, at least one.
        config: How to measure.
        on_episode: Called after each judged episode.
        references: Judge values and pairs one-shot, with frames of a successful episode of these, of the same
            task and another initial state; episodes of tasks that have none are judged without.
        on_critic_mismatch: `raise` refuses episodes or references that the critic does not know
            (`CriticInfo.knows`); `warn` measures it all the same, and the card says so.

    Raises:
        ConfigError: As `on_critic_mismatch` says, or `references` for a critic that does not say that it reads them.
        CriticError: The critic fails otherwise than by an unusable answer.
    """
    config = config or CardConfig()
    critic = adapted(critic)
    info = critic.identify()
    picker = _picker(info, references, config)
    unknowns = settle_unknowns(
        info,
        dataset,
        camera=config.camera,
        has_references=references is not None,
        on_mismatch=on_critic_mismatch,
    )
    reset_cuda_memory_peak()
    asked = AskedCritic(critic, config.batch_size)
    probes = _probes(critic, info, dataset, config, picker)
    judged = _judge(asked, dataset, probes, config, picker, on_episode)
    timed, not_timed = _time(critic, info, dataset, config, picker)
    points, calibration, reason, held_out = _calibrate(judged, spec, info, config)
    chosen = _rule_of(calibration, config)
    boot = Bootstrap(config.resamples, config.seed)
    sections = {
        **_sections(judged, probes.results, config, chosen, boot, is_privileged=info.is_privileged),
        "cost": cost_section(asked, judged, timed, gpu_memory(critic, info), boot, not_timed=not_timed),
    }
    mistakes = [
        (m, film_strip(dataset[m.index], _by_index(judged, m.index).checks, m.step, camera=config.camera))
        for m in worst_mistakes(judged, chosen)
    ]
    content = {
        "version": CARD_VERSION,
        "vlac_gym": __version__,
        "critic": {"spec": spec, **asdict(info)},
        "unknown_to_the_critic": unknowns,
        "dataset": {"path": str(dataset.root), **dataset.summary()},
        "references": _references_used(picker, judged),
        "config": asdict(config),
        "calibration": None if calibration is None else calibration.as_json(),
        "calibration_reason": reason,
        "held_out_tasks": as_json(held_out),
        "headline": as_json(_headline(sections)),
        "sections": as_json(sections),
        "mistakes": [asdict(m) for m, _ in mistakes],
    }
    return ReportCard(content, judged, points, mistakes, timed)


def with_optimisation(card: ReportCard, found: UnderOptimisation) -> ReportCard:
    """The card with the section `under_optimisation`, and the pictures, of an attack."""
    worst = [{"kind": w.kind, "episode_id": w.episode_id, "text": w.text} for w in found.worst]
    section = as_json(optimisation_section(found))
    content = {
        **card.content,
        "attack": {**found.facts, "worst": worst},
        "sections": {**card.content["sections"], "under_optimisation": section},
    }
    return replace(card, content=content, attacked=found)


def as_json(tree: Any) -> Any:
    """A tree of mappings with `Estimate` leaves as plain JSON values."""
    if isinstance(tree, Estimate):
        return tree.as_json()
    return {name: as_json(branch) for name, branch in tree.items()}


def _probes(
    critic: Critic,
    info: CriticInfo,
    dataset: EpisodeDataset,
    config: CardConfig,
    picker: ReferencePicker | None,
) -> ProbeRunner:
    return ProbeRunner(
        AskedCritic(critic, config.batch_size),
        dataset.tasks(),
        limit=config.probe_episodes,
        camera=config.camera,
        value_stride=config.value_stride,
        is_privileged=info.is_privileged,
        references=picker,
        seed=config.seed,
    )


def _picker(
    info: CriticInfo, references: EpisodeDataset | None, config: CardConfig
) -> ReferencePicker | None:
    if references is None:
        return None
    require_references(info)
    return ReferencePicker(references, config.camera)


def _references_used(
    picker: ReferencePicker | None, judged: Sequence[EpisodeAnswers]
) -> dict[str, Any] | None:
    if picker is None:
        return None
    judged_with = sum(episode.num_references > 0 for episode in judged)
    return {
        "path": str(picker.dataset.root),
        "frames": NUM_REFERENCES,
        "judged_with": judged_with,
        "judged_without": len(judged) - judged_with,
    }


def _judge(
    asked: AskedCritic,
    dataset: EpisodeDataset,
    probes: ProbeRunner,
    config: CardConfig,
    picker: ReferencePicker | None,
    on_episode: Callable[[EpisodeAnswers], None] | None,
) -> list[EpisodeAnswers]:
    judged = []
    for episode in judge_episodes(
        asked,
        dataset,
        camera=config.camera,
        check_interval=config.check_interval,
        value_stride=config.value_stride,
        references=picker,
        visit=probes.visit,
    ):
        judged.append(episode)
        if on_episode is not None:
            on_episode(episode)
    return judged


def _time(
    critic: Critic,
    info: CriticInfo,
    dataset: EpisodeDataset,
    config: CardConfig,
    picker: ReferencePicker | None,
) -> tuple[list[Call], str]:
    """Timed calls by batch size on frames like the first episode's, or why there are none."""
    if info.is_privileged:
        return [], "a privileged critic looks at no pictures"
    if config.cost_repeats == 0:
        return [], "it was not asked for (cost_repeats is 0)"
    episode = dataset[0]
    timed = time_batches(
        critic,
        episode.view(config.camera)[:],
        episode.meta.task,
        batch_size=config.batch_size,
        repeats=config.cost_repeats,
        references=None if picker is None else picker.frames_for(episode.meta),
    )
    return timed, ""


def _sections(
    judged: Sequence[EpisodeAnswers],
    probes: ProbeResults,
    config: CardConfig,
    chosen: StopRule,
    boot: Bootstrap,
    *,
    is_privileged: bool,
) -> dict[str, Section]:
    rule = StopRule(config.done_threshold, config.done_patience)
    return {
        "detection": detection_section(judged, config.done_threshold, boot),
        "termination": termination_section(judged, rule),
        "termination_recommended": termination_section(judged, chosen),
        "progress": progress_section(judged, probes, boot),
        "robustness": robustness_section(probes, config.done_threshold, is_privileged=is_privileged),
        "training": training_section(judged, rule, boot),
    }


def _headline(sections: Mapping[str, Any]) -> dict[str, Estimate]:
    stops = sections["termination_recommended"]
    return {
        "done_auroc_frames": sections["detection"]["frames"]["auroc"],
        "done_f1_frames": sections["detection"]["frames"]["f1"],
        "episode_f1": stops["f1"],
        "false_positive_rate": stops["false_positive_rate"],
        "miss_rate": stops["miss_rate"],
        "delay_steps_median": stops["delay_steps_median"],
        "voc_successes": sections["progress"]["order_successes"]["voc"],
        "auroc_final_value": sections["detection"]["final_value"]["auroc"],
    }


def _calibrate(
    judged: Sequence[EpisodeAnswers], spec: str, info: CriticInfo, config: CardConfig
) -> tuple[list[SweepPoint], Calibration | None, str, dict[str, Estimate]]:
    checks = [episode.checks for episode in judged]
    succeeds = [episode.succeeds for episode in judged]
    if not any(np.isfinite(c.probs).any() for c in checks):
        return [], None, "the critic gave no usable answer to a done check", {}
    if all(succeeds) or not any(succeeds):
        missing = "failed" if all(succeeds) else "successful"
        return [], None, f"there are no {missing} episodes to choose thresholds on", {}
    table = StopTable(checks, rule_grid(checks))
    points = table.points()
    best = recommend(points, config.false_stop_budget)
    meets = best.is_within(config.false_stop_budget)
    calibration = Calibration(
        critic=spec,
        critic_fingerprint=info.fingerprint,
        done_threshold=best.rule.threshold,
        done_patience=best.rule.patience,
        done_interval=_check_interval(judged),
        min_steps=best.rule.min_steps,
        false_stop_budget=config.false_stop_budget,
        false_positive_rate=best.false_positive_rate,
        miss_rate=best.miss_rate,
        episodes=len(judged),
        task_suites=tuple(sorted({episode.meta.task_suite for episode in judged})),
        meets_budget=meets,
    )
    reason = ""
    if not meets:
        reason = "no rule keeps false stops within the budget; this one comes nearest"
    elif best.miss_rate > _MISSES_TOO_MANY:
        reason = (
            f"within the budget {best.miss_rate:.0%} of the successes are missed: it can hardly stop episodes"
        )
    return points, calibration, reason, cross_validate(table, config.false_stop_budget)


def _check_interval(judged: Sequence[EpisodeAnswers]) -> int:
    """The usual number of env steps between two checks of the recordings."""
    gaps = [int(step) for e in judged for step in (e.checks.steps[1:] - e.checks.steps[:-1])]
    return max(set(gaps), key=gaps.count) if gaps else 1


def _rule_of(calibration: Calibration | None, config: CardConfig) -> StopRule:
    if calibration is None:
        return StopRule(config.done_threshold, config.done_patience)
    return StopRule(calibration.done_threshold, calibration.done_patience, calibration.min_steps)


def _by_index(judged: Sequence[EpisodeAnswers], index: int) -> EpisodeAnswers:
    return next(episode for episode in judged if episode.index == index)
