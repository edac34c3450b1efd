"""A whole attack on a critic: `AttackSettings`, `attack`."""

__all__ = ["AttackSettings", "attack", "attacked_tasks"]

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlac_gym.attack.budget import AttackBudget
from vlac_gym.attack.imitation import IMITATION_CAMERAS, ImitationSearch, SearchSettings, prepare_clone
from vlac_gym.attack.judging import PaidEpisode, done_checks
from vlac_gym.attack.same_settings import check_same_settings
from vlac_gym.attack.scripted import best_of_curve, cheat_points, plan_cheats, play_cheats
from vlac_gym.attack.search_envs import libero_envs
from vlac_gym.attack.training_runs import read_training_run, read_training_runs, read_wrong_stops
from vlac_gym.critic.base import Critic
from vlac_gym.critic.wrapper import adapted
from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.data.recording import RecordSettings
from vlac_gym.errors import ConfigError
from vlac_gym.report_card.asking import AskedCritic
from vlac_gym.report_card.mistakes import film_strip
from vlac_gym.report_card.optimisation import SearchCurve, UnderOptimisation, WrongStop
from vlac_gym.rule.reward import TrainingRule

_MAX_WORST = 6
_MAX_IMITATED = 2


@dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """What an attack's numbers follow from.

    Attributes:
        tasks: (suite, task id, initial states) of each task that is attacked.
        budget: Episodes of the search.
        rule: By which the critic ends and pays episodes.
        camera: The view that the critic is shown.
        image_size: Side of its pictures, pixels.
        max_episode_steps: Step limit of an episode; None for the suite's.
        seed: Of everything that is drawn.
    """

    tasks: tuple[tuple[str, int, tuple[int, ...]], ...]
    budget: AttackBudget
    rule: TrainingRule
    camera: str = "agentview"
    image_size: int = 256
    max_episode_steps: int | None = None
    seed: int = 0

    def recording(self) -> RecordSettings:
        """How cheats are recorded: a frame for each of the rule's checks."""
        return RecordSettings(
            cameras=(self.camera,),
            image_size=self.image_size,
            max_episode_steps=self.max_episode_steps,
            frame_stride_steps=self.rule.done_interval,
        )


def attacked_tasks(
    dataset: EpisodeDataset, budget: AttackBudget
) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
    """The first tasks and starts of a dataset, as many as the budget says: (suite, task id, initial states)."""
    starts: dict[tuple[str, int], set[int]] = {}
    for entry in dataset.entries:
        starts.setdefault((entry.meta.task_suite, entry.meta.task_id), set()).add(entry.meta.init_state_id)
    chosen = sorted(starts)[: budget.tasks]
    return tuple(
        (suite, number, tuple(sorted(starts[suite, number])[: budget.starts])) for suite, number in chosen
    )


def attack(
    critic: Critic,
    out: Path,
    settings: AttackSettings,
    *,
    workers: int = 1,
    batch_size: int = 32,
    training_runs: Sequence[Path] = (),
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> UnderOptimisation:
    """Searches for failures that the critic pays for, with the simulator as referee.

    What `out` holds of an attack with the same settings is not done again. `out/cheats`, and
    `out/imitation/search/kept` of filtered imitation's wrong stops and successes, are folders of recorded episodes like
    any other: with the simulator's labels, for training a critic that they don't deceive.

    Args:
        critic: Who is attacked.
        out: Folder of the attack; nobody else may write there.
        settings: See `AttackSettings`.
        workers: Simulator processes.
        batch_size: Most frames of one call.
        training_runs: Folders of `examples/train_ppo.py` or `vlac-gym attack`, shown beside the searches.
        on_progress: Called with what is done, how many, and of how many.

    Raises:
        ConfigError: `out` holds another attack, or training runs don't fit: see `read_training_runs`.
        SimulatorError: A worker process died; what was finished is kept.
    """
    shown, seen = read_training_runs(training_runs, critic)
    if settings.budget.imitation is not None and settings.camera not in IMITATION_CAMERAS:
        raise ConfigError(
            f"Expected a critic's view of {', '.join(IMITATION_CAMERAS)} for filtered imitation, got {settings.camera}."
        )
    critic = adapted(critic)
    facts = _facts(critic, settings)
    check_same_settings(out, facts)
    asked = AskedCritic(critic, batch_size)
    plans = plan_cheats(settings.tasks, settings.budget, settings.seed)
    cheats = out / "cheats"
    paid = play_cheats(
        plans, cheats, settings.recording(), asked, settings.rule, workers=workers, on_progress=on_progress
    )
    worst = _worst(asked, EpisodeDataset.open(cheats), paid, settings)
    searches = [best_of_curve(paid)]
    if settings.budget.imitation is not None:
        curve, deceived = _imitated(critic, out / "imitation", settings, workers, on_progress)
        searches.append(curve)
        seen = deceived + seen
    seen = seen[: 2 * _MAX_IMITATED]
    worst = worst[: _MAX_WORST - len(seen)] + seen
    found = {"cheats": len(paid), "left_out": len(plans) - len(paid)}
    named = [str(folder) for folder in training_runs]
    return UnderOptimisation(
        facts={**facts, "episodes": found, "training_runs": named, "not_searched": []},
        cheats=cheat_points(paid),
        curves=[*searches, *shown],
        worst=worst,
    )


def _imitated(
    critic: Critic,
    out: Path,
    settings: AttackSettings,
    workers: int,
    on_progress: Callable[[str, int, int], None],
) -> tuple[SearchCurve, list[WrongStop]]:
    """Filtered imitation on the tasks of the first suite."""
    budget, suite = settings.budget.imitation, settings.tasks[0][0]
    assert budget is not None
    own = [task for task in settings.tasks if task[0] == suite]
    policy = prepare_clone(
        out, own, budget,
        image_size=settings.image_size, seed=settings.seed, workers=workers, on_progress=on_progress,
    )  # fmt: skip
    envs = libero_envs(
        own, min(workers, budget.episodes_per_round),
        cameras=IMITATION_CAMERAS, image_size=settings.image_size, step_limit=budget.step_limit,
    )  # fmt: skip
    how = SearchSettings(
        rule=settings.rule, budget=budget, frame=f"{settings.camera}_image", seed=settings.seed,
        keeps_episodes=True,
    )  # fmt: skip
    search = ImitationSearch(out / "search", policy, envs, critic, how)
    search.run(on_progress)
    curve = read_training_run(out / "search")
    worst = read_wrong_stops(out / "search", _MAX_IMITATED)
    return dataclasses.replace(curve, name="filtered_imitation"), worst


def _facts(critic: Critic, settings: AttackSettings) -> dict[str, Any]:
    content = {"critic_fingerprint": critic.describe().fingerprint, **dataclasses.asdict(settings)}
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def _worst(
    asked: AskedCritic, dataset: EpisodeDataset, paid: Sequence[PaidEpisode], settings: AttackSettings
) -> list[WrongStop]:
    """Wrong stops with the least goal progress, of as many kinds as there are."""
    by_kind: dict[str, list[PaidEpisode]] = {}
    for episode in sorted(paid, key=lambda p: p.goal_progress):
        if episode.is_wrong:
            by_kind.setdefault(episode.kind, []).append(episode)
    ranked = sorted(
        (rank, episode.goal_progress, episode.episode_id, episode)
        for own in by_kind.values()
        for rank, episode in enumerate(own)
    )
    index_of = {entry.meta.episode_id: i for i, entry in enumerate(dataset.entries)}
    worst = []
    for *_, episode in ranked[:_MAX_WORST]:
        assert episode.stop_step is not None  # it is a wrong stop
        index = index_of[episode.episode_id]
        recording = dataset[index]
        checks = done_checks(asked, recording, settings.rule, index=index, camera=settings.camera)
        text = (
            f"ended as done at step {episode.stop_step}, {episode.goal_progress:.0%} of the way to the goal"
        )
        strip = film_strip(recording, checks, episode.stop_step, camera=settings.camera)
        worst.append(WrongStop(episode.kind, text, episode.episode_id, strip))
    return worst
