"""`vlac-gym eval`: how often a policy succeeds on LIBERO's tasks, by the simulator's verdict alone."""

__all__ = ["Args", "run"]

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlac_gym.cli.progress import counting
from vlac_gym.cli.run_metrics import check_dashboards, run_metrics
from vlac_gym.critic import make_critic
from vlac_gym.critic.base import Critic
from vlac_gym.critic.registry import check_critic
from vlac_gym.critic.torch_threads import spare_threads
from vlac_gym.envs.gl import renders_in_software
from vlac_gym.envs.libero.tasks import list_tasks
from vlac_gym.errors import ConfigError
from vlac_gym.evaluation.folder import EVAL_FILES, EvalFolder, new_folder, read_run
from vlac_gym.evaluation.page import percent
from vlac_gym.evaluation.run import EvalSettings, check_settings, evaluate
from vlac_gym.files.output_folder import claim_folder
from vlac_gym.policies import make_policy
from vlac_gym.reporting.mp4 import require_video_packages
from vlac_gym.specs.ids import parse_ids

_NOT_SETTINGS = ("runs", "resume", "num_envs", "videos_per_task", "tensorboard", "wandb")
"""Arguments that change no number, and may differ when a run is resumed."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to evaluate; every run has a folder of its own."""

    policy: str = "expert"
    """What acts: expert, replay:FILE, ws://host:8000, lerobot:PATH, module:factory, …; see docs/policies.md."""
    task_suite: str = "libero_spatial"
    """See `vlac-gym tasks`; LIBERO-PRO's variants are suites too."""
    task_id: str = "all"
    """Tasks of the suite: all, or numbers as in 0,3,5-7."""
    episodes_per_task: int = 50
    """How many; episode i of a task starts from its official initial state i."""
    first_episode: int = 0
    """The first of them: 25 with 25 episodes are the states 25 to 49 alone, with the seeds that all 50 give them; more
    begin at state 0 again."""
    num_envs: int = 4
    """Envs at a time, each in a process of its own; changes no result."""
    seed: int = 0
    """Of envs and policy; each episode's seed follows from it, the task and the episode's number."""
    runs: Path = Path("runs/eval")
    """Folder in which the run gets a new folder, named by time and suite."""
    resume: Path | None = None
    """Folder of a run to finish, with its settings; only --num-envs, --videos-per-task, --tensorboard and --wandb
    may be given beside it."""
    videos_per_task: int = 3
    """Most videos of a task, failures first; 0 for none."""
    max_episode_steps: int | None = None
    """Step limit; default: the suite's."""
    settle_steps: int = 10
    """Steps without motion before an episode."""
    image_size: int = 256
    """Side of the rendered pictures in pixels."""
    critic: str | None = None
    """A critic to ask beside it, for an audit: nano, http://host:8400, …; it decides nothing."""
    critic_interval: int = 8
    """Least env steps between two frames that the critic is asked about."""
    done_threshold: float = 0.9
    """success_prob from which the critic's answer counts as done, [0, 1]."""
    tensorboard: bool = False
    """Write the rates for TensorBoard too, into the run's folder `tensorboard`, and into its `metrics.jsonl`."""
    wandb: str | None = None
    """Project at Weights & Biases for the rates; with WANDB_MODE=offline they stay in the run's folder `wandb`."""


def run(args: Args) -> int:
    """Runs the command; see `vlac-gym eval --help`."""
    settings = _settings(args) if args.resume is None else _resumed(args)
    if args.num_envs < 1 or args.videos_per_task < 0:
        raise ConfigError(
            f"Expected --num-envs >= 1 and --videos-per-task >= 0, got {args.num_envs} and {args.videos_per_task}."
        )
    check_settings(settings)
    check_dashboards(tensorboard=args.tensorboard, wandb=args.wandb)
    if settings.critic is not None:
        check_critic(settings.critic)
    require_video_packages(videos=args.videos_per_task > 0)
    policy = make_policy(settings.policy)
    path = args.resume or new_folder(args.runs, settings.task_suite)
    with claim_folder(path, resume=args.resume is not None, ours=EVAL_FILES, what="--runs"):
        critic = _critic(settings.critic)
        folder = EvalFolder(path, dataclasses.asdict(settings))
        try:
            with counting("episodes") as on_progress:
                results = evaluate(
                    settings,
                    folder,
                    num_envs=args.num_envs,
                    policy=policy,
                    critic=critic,
                    videos_per_task=args.videos_per_task,
                    on_progress=on_progress,
                )
        finally:
            if critic is not None:
                critic.close()
        _send(results, path, args)
    print(_table(results))
    print(f"\n{path / 'index.html'}")
    return 0


def _settings(args: Args) -> EvalSettings:
    names = {field.name for field in dataclasses.fields(EvalSettings)} - {"task_ids"}
    tasks = list_tasks(args.task_suite)
    task_ids = parse_ids(args.task_id, len(tasks), f"task ids of {args.task_suite}")
    return EvalSettings(task_ids=tuple(task_ids), **{name: getattr(args, name) for name in names})


def _resumed(args: Args) -> EvalSettings:
    """The settings of the run to finish; refuses others beside `--resume`."""
    assert args.resume is not None
    stored = read_run(args.resume).settings
    defaults = Args()
    given = [
        f"--{field.name.replace('_', '-')}"
        for field in dataclasses.fields(args)
        if field.name not in _NOT_SETTINGS and getattr(args, field.name) != getattr(defaults, field.name)
    ]
    if given:
        raise ConfigError(
            f"Expected no settings beside --resume, which continues {args.resume} with its own, got {', '.join(given)}."
        )
    try:
        return EvalSettings(**{**stored, "task_ids": tuple(stored["task_ids"])})
    except (KeyError, TypeError) as e:
        raise ConfigError(f"{args.resume} holds settings of another version: {e}.") from e


def _send(results: Mapping[str, Any], path: Path, args: Args) -> None:
    """The finished run's rates, as one step, to the dashboards that were asked for."""
    metrics = run_metrics(path, args, tensorboard=args.tensorboard, wandb=args.wandb)
    if metrics is None:
        return
    suite = results["suite"]
    row = {f"eval/{name}": suite[name] for name in ("episodes", "successes", "lost", "mean_steps")}
    row["eval/success_rate"] = suite["success_rate"]["value"]
    for task in results["tasks"]:
        row[f"eval/success_rate_task_{task['task_id']}"] = task["success_rate"]["value"]
    with metrics:
        metrics.write(0, row)


def _critic(spec: str | None) -> Critic | None:
    if spec is None:
        return None
    critic = make_critic(spec)
    spare_threads(critic.describe(), renders_in_software=renders_in_software())
    return critic


def _table(results: Mapping[str, Any]) -> str:
    rows = [["task", "success", "rate", "95 % interval", "steps", "instruction"]]
    suite = {"task_id": "all", "task": results["settings"]["task_suite"], **results["suite"]}
    for row in (*results["tasks"], suite):
        share, steps = row["success_rate"], row["mean_steps"]
        rows.append(
            [
                str(row["task_id"]),
                f"{row['successes']}/{row['episodes']}",
                percent(share["value"]),
                f"{percent(share['low'])} … {percent(share['high'])}",
                "–" if steps is None else f"{steps:.0f}",
                row["task"],
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join([*(cell.rjust(w) for cell, w in zip(row, widths)), row[5]]) for row in rows]
    if results["suite"]["lost"]:
        lines.append(f"{results['suite']['lost']} lost with worker or simulator; in no rate.")
    return os.linesep.join(lines)
