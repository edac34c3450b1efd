"""`vlac-gym report-card`: measures any critic on recorded or fresh episodes, with the simulator as referee."""

__all__ = ["Args", "run"]

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlac_gym.attack.budget import BUDGETS
from vlac_gym.attack.run import AttackSettings, attack, attacked_tasks
from vlac_gym.attack.training_runs import read_training_runs, runs_alone
from vlac_gym.cli.collect import collect_with_progress
from vlac_gym.cli.progress import counting
from vlac_gym.cli.run_metrics import check_dashboards, run_metrics
from vlac_gym.critic import make_critic
from vlac_gym.critic.base import Critic
from vlac_gym.critic.knowledge import OnMismatch
from vlac_gym.critic.registry import check_critic
from vlac_gym.data.collect_options import CollectOptions, check_collection
from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.errors import ConfigError
from vlac_gym.files.config_file import CONFIG_FILE, write_config
from vlac_gym.files.output_folder import claim_folder
from vlac_gym.report_card.card import CardConfig, ReportCard, make_card, with_optimisation
from vlac_gym.report_card.comparison import read_card, write_comparison
from vlac_gym.report_card.episode_answers import EpisodeAnswers
from vlac_gym.report_card.names import HEADLINES
from vlac_gym.report_card.page import write_card
from vlac_gym.report_card.references import require_references
from vlac_gym.reporting.mp4 import require_video_packages
from vlac_gym.rule.reward import training_rule
from vlac_gym.specs.ids import parse_ids

_ANY = 1_000_000  # larger than any id


@dataclass(frozen=True, kw_only=True)
class Args:
    """Whom to measure, on what, and where to write."""

    critic: str
    """nano, transformers:PATH, http://host:8400, oracle, noisy_oracle:tpr=0.8,fpr=0.05, …"""
    out: Path
    """Folder for card.json and index.html; new or empty, unless --resume."""
    resume: bool = False
    """Go on collecting into OUT/collected, and attacking in OUT/attack, where an earlier call was cut short."""
    episodes: Path | None = None
    """Folder of `vlac-gym collect`; give this or --collect."""
    collect: tuple[str, ...] = ()
    """Suites to collect fresh episodes of, into OUT/collected."""
    collect_episodes: int = 20
    """Fresh episodes of each task."""
    collect_task_ids: str = "all"
    """Tasks of the fresh episodes: all, 0-4, 0,3,7."""
    collect_init_states: str = "all"
    """Initial states of the fresh episodes."""
    collect_cameras: tuple[str, ...] = ("agentview",)
    """Views of the fresh episodes: agentview, wrist; with @diffuse, @direction, @specular or @shadow relit."""
    workers: int = 1
    """Simulator processes for fresh episodes."""
    init_states: str | None = None
    """Judge only episodes from these initial states, e.g. 40-49 for held-out ones."""
    task_ids: str | None = None
    """Judge only episodes of these tasks, e.g. 0-4 or 8,9."""
    done_threshold: float = 0.9
    """Threshold of metrics that need one."""
    done_patience: int = 1
    """Patience of the rule whose stops are reported."""
    check_interval: int = 1
    """Env steps between done checks, at least; recorded frames are the most there can be."""
    value_stride: int = 5
    """Env steps between frames of the value list."""
    false_stop_budget: float = 0.03
    """Largest share of episodes that the recommended rule may stop falsely."""
    camera: str | None = None
    """View to show; default: the first recorded. The other recorded views are compared with it."""
    one_shot: bool = False
    """Show the critic a successful episode of the same task and another initial state, where there is one."""
    references: Path | None = None
    """Folder of the episodes that --one-shot shows; default: the judged folder, all of it."""
    on_critic_mismatch: OnMismatch = "raise"
    """raise: refuse a critic that does not know these tasks, views or references. warn: measure it all the same."""
    batch_size: int = 32
    """Most frames or pairs of one call."""
    probe_episodes: int = 40
    """Episodes to ask in other words, pictures and views."""
    cost_repeats: int = 5
    """Timed calls for each batch size, on new frames; 0 leaves them out."""
    seed: int = 0
    """Seed of the bootstrap and the probes."""
    against: Path | None = None
    """An earlier card.json to compare with, into OUT/comparison.html."""
    attack: Literal["small", "full"] | None = None
    """Search for failures that the critic pays for, into OUT/attack: small takes minutes on two CPU cores, full
    minutes on a GPU with 16 simulator processes (--workers)."""
    attack_runs: tuple[Path, ...] = ()
    """Folders of `vlac-gym attack` and of training runs (examples/train_ppo.py) to show beside the searches of
    --attack, or alone, which needs no simulator."""
    tensorboard: bool = False
    """Write numbers for TensorBoard too, into OUT/tensorboard, and into OUT/metrics.jsonl."""
    wandb: str | None = None
    """Send them to this project at Weights & Biases; with WANDB_MODE=offline in the environment, they stay in
    OUT/wandb."""


def run(args: Args) -> int:
    """Runs the command; see `vlac-gym report-card --help`."""
    config = CardConfig(
        done_threshold=args.done_threshold,
        done_patience=args.done_patience,
        check_interval=args.check_interval,
        value_stride=args.value_stride,
        false_stop_budget=args.false_stop_budget,
        camera=args.camera,
        batch_size=args.batch_size,
        probe_episodes=args.probe_episodes,
        cost_repeats=args.cost_repeats,
        seed=args.seed,
    )
    _check(args)
    require_video_packages(videos=False)
    check_dashboards(tensorboard=args.tensorboard, wandb=args.wandb)
    earlier = None if args.against is None else read_card(args.against)
    with claim_folder(args.out, resume=args.resume, ours=_ours(args)):
        references = None if args.references is None else EpisodeDataset.open(args.references)
        dataset = None if args.episodes is None else _chosen(args, args.episodes)
        critic = make_critic(args.critic)
        try:
            read_training_runs(args.attack_runs, critic)  # before any work
            if args.one_shot:
                require_references(critic.identify())
            if dataset is None:
                dataset = _collected(args)
            if args.one_shot and references is None:
                references = EpisodeDataset.open(dataset.root)
            card = _judge(args, config, dataset, critic, references)
            write_config(args.out, args)
            card_file, page = write_card(card, args.out)
            if args.attack is not None:
                card = _attacked(args, card, dataset, critic)
                write_card(card, args.out)
            elif args.attack_runs:
                card = with_optimisation(card, runs_alone(critic, args.attack_runs))
                write_card(card, args.out)
            if earlier is not None:
                write_comparison(earlier, card.content, args.out)
        finally:
            critic.close()
        _send_headline(card, args)
    print(_reading(card))
    print(f"{card_file}\n{page}")
    return 0


def _ours(args: Args) -> tuple[str, ...]:
    """What an earlier call may have left that was cut short; an attack begins when the card is written."""
    attacked = () if args.attack is None else ("attack", "card.json", "index.html")
    return ("collected", CONFIG_FILE, *attacked)


def _check(args: Args) -> None:
    """What can be checked before a critic is loaded, and before episodes are collected."""
    if (args.episodes is None) == (not args.collect):
        raise ConfigError("Expected either --episodes DIR or --collect SUITE, not both and not neither.")
    if args.references is not None and not args.one_shot:
        raise ConfigError("Expected --references with --one-shot, got it alone. Add --one-shot.")
    if args.resume and args.episodes is not None and args.attack is None:
        raise ConfigError(
            "Expected --resume with --collect or --attack, whose episodes are all that can be continued."
        )
    read_training_runs(args.attack_runs)
    check_critic(args.critic)
    for text, what in ((args.init_states, "initial states"), (args.task_ids, "task ids")):
        if text is not None:
            parse_ids(text, _ANY, what)
    if args.collect:
        check_collection(_collect_options(args))


def _collected(args: Args) -> EpisodeDataset:
    options = _collect_options(args)
    collect_with_progress(options)
    return _chosen(args, options.out)


def _collect_options(args: Args) -> CollectOptions:
    return CollectOptions(
        out=args.out / "collected",
        resume=args.resume,
        task_suite=args.collect,
        task_ids=args.collect_task_ids,
        init_states=args.collect_init_states,
        episodes=args.collect_episodes,
        cameras=args.collect_cameras,
        workers=args.workers,
        seed=args.seed,
    )


def _chosen(args: Args, folder: Path) -> EpisodeDataset:
    kept = EpisodeDataset.open(folder).select(
        lambda e: (
            _is_in(e.meta.init_state_id, args.init_states, "initial states")
            and _is_in(e.meta.task_id, args.task_ids, "task ids")
        )
    )
    if not kept:
        raise ConfigError(f"No episode of {folder} has the initial states and tasks that were asked for.")
    return kept


def _is_in(number: int, text: str | None, what: str) -> bool:
    return text is None or number in parse_ids(text, _ANY, what)


def _judge(
    args: Args,
    config: CardConfig,
    dataset: EpisodeDataset,
    critic: Critic,
    references: EpisodeDataset | None,
) -> ReportCard:
    with counting("judging") as on_progress:
        done = itertools.count(1)

        def advance(_: EpisodeAnswers) -> None:
            on_progress(next(done), len(dataset))

        return make_card(critic, args.critic, dataset, config, advance, references, args.on_critic_mismatch)


def _attacked(args: Args, card: ReportCard, dataset: EpisodeDataset, critic: Critic) -> ReportCard:
    """The card with what a search against the critic came to, by the rule that the card recommends, if it does."""
    assert args.attack is not None
    budget = BUDGETS[args.attack]
    rule = card.content["calibration"] or {
        "done_threshold": args.done_threshold,
        "done_patience": args.done_patience,
        "done_interval": args.check_interval,
        "min_steps": 0,
    }
    chosen = {name: rule[name] for name in ("done_threshold", "done_patience", "done_interval", "min_steps")}
    camera = args.camera or next(iter(dataset[0].frames))
    settings = AttackSettings(
        tasks=attacked_tasks(dataset, budget),
        budget=budget,
        rule=training_rule("vlac", value_stride=args.value_stride, **chosen),
        camera=camera,
        image_size=dataset[0].view(camera)[0].shape[0],
        seed=args.seed,
    )
    with counting("attacking") as on_progress:
        found = attack(
            critic,
            args.out / "attack",
            settings,
            workers=args.workers,
            batch_size=args.batch_size,
            training_runs=args.attack_runs,
            on_progress=lambda what, done, total: on_progress(done, total),
        )
    return with_optimisation(card, found)


def _send_headline(card: ReportCard, args: Args) -> None:
    metrics = run_metrics(args.out, args, tensorboard=args.tensorboard, wandb=args.wandb)
    if metrics is not None:
        with metrics:
            headline = card.content["headline"]
            metrics.write(0, {f"report_card/{name}": headline[name]["value"] for name in HEADLINES})


def _reading(card: ReportCard) -> str:
    lines = []
    for name, label in HEADLINES.items():
        estimate = card.content["headline"][name]
        shown = "–" if estimate["value"] is None else f"{estimate['value']:.3f}"
        detail = estimate["reason"]
        if estimate["low"] is not None:
            detail = f"{estimate['low']:.3f} … {estimate['high']:.3f}"
        lines.append(f"{shown:>8}  {label}  {detail}".rstrip())
    rule = card.content["calibration"]
    if rule is None:
        lines.append(f"No thresholds recommended: {card.content['calibration_reason']}.")
    else:
        names = ("done_threshold", "done_patience", "done_interval", "min_steps")
        lines.append("Recommended: " + json.dumps({name: rule[name] for name in names}))
        if card.content["calibration_reason"]:
            lines.append(f"Beware: {card.content['calibration_reason']}.")
    return "\n".join(lines)
