"""`vlac-gym rollout`: runs LIBERO episodes judged by a critic and writes videos, plots, numbers and a page."""

__all__ = ["Args", "run"]

import dataclasses
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gymnasium as gym

from vlac_gym import LIBERO_ENV_ID
from vlac_gym.cli.interrupts import interrupts_held
from vlac_gym.cli.rollout_progress import RolloutProgress
from vlac_gym.cli.run_metrics import check_dashboards, run_metrics
from vlac_gym.critic import make_critic
from vlac_gym.critic.answers import checked_answers
from vlac_gym.critic.base import Critic
from vlac_gym.critic.knowledge import OnMismatch
from vlac_gym.critic.recorded import RecordedCritic
from vlac_gym.critic.registry import check_critic
from vlac_gym.critic.signals import EpisodeSignals
from vlac_gym.critic.torch_threads import limit_torch_threads
from vlac_gym.envs.gl import renders_in_software
from vlac_gym.envs.libero.tasks import LiberoTask, get_task
from vlac_gym.errors import ConfigError, CriticError, VlacGymError
from vlac_gym.files.config_file import write_config
from vlac_gym.files.output_folder import claim_folder
from vlac_gym.metrics.writer import MetricsWriter
from vlac_gym.policies import Policy, make_policy
from vlac_gym.reporting.mp4 import require_video_packages
from vlac_gym.reporting.reading import read_summary
from vlac_gym.reporting.run_folder import RUN_FILES, RunFolder, RunStatus, recorded_episodes
from vlac_gym.reporting.trace import EpisodeTrace
from vlac_gym.types import Frame, Mode
from vlac_gym.wrappers import EpisodeVideoWrapper, VLACRewardWrapper
from vlac_gym.wrappers.rule_setup import resolve_rule

_RULE_OPTIONS = ("done_threshold", "done_patience", "done_interval", "min_steps", "min_value", "value_stride")


_NOT_SETTINGS = ("out", "record_critic", "resume", "start_cache", "tensorboard", "torch_threads", "wandb")
"""Arguments that may differ when a run is resumed, perhaps on another machine."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to run, and where to write."""

    out: Path
    """Folder for the run, new or empty, unless --resume."""
    task_suite: str = "libero_spatial"
    """See `vlac-gym tasks`."""
    task_id: int = 0
    """Number of the task in its suite."""
    init_state_id: int | None = None
    """Official initial state of every episode; default: 0, 1, 2, … from episode to episode."""
    policy: str = "expert"
    """What drives the arm: expert, random, zero, replay:FILE, expert:noise=0.1, ws://host:8000, module:factory, …; see
    docs/policies.md."""
    critic: str = "oracle"
    """Who judges: nano, transformers:PATH, http://host:8400, recorded:FILE, …; oracle and noisy_oracle:tpr=0.8 are
    privileged: they read the simulator, so that the default shows what a perfect critic would do."""
    record_critic: Path | None = None
    """File for the critic's questions and answers, new or one that --resume continues; --critic recorded:FILE gives
    them again without a model."""
    mode: Mode = "train"
    """train: the critic pays and stops. eval: the simulator does, and the critic is not called."""
    episodes: int = 1
    """How many episodes, 1 or more."""
    seed: int = 0
    """Episode i resets env and policy with seed + i."""
    video: bool = True
    """Write an mp4 per episode, with the critic's curves beside the frames."""
    wrist: bool = False
    """Show the wrist camera beside the frame in the mp4; it is rendered at every step, and no critic sees it."""
    frames: bool = True
    """Keep each episode's frames as they were, in an mp4 without loss that `vlac-gym score` reads."""
    resume: bool = False
    """Continue the run that --out holds, with the same settings."""
    max_episode_steps: int | None = None
    """Step limit; default: the suite's."""
    image_size: int = 256
    """Height and width of the camera picture, pixels."""
    preset: str = "vlac"
    """Training rule: vlac, sparse, dense, pbrs, evolve."""
    calibration: str | None = None
    """JSON file with thresholds, as the report card writes it, or nano."""
    on_critic_mismatch: OnMismatch = "raise"
    """raise: refuse a critic that does not know the task, or that the calibration was not measured on. warn: run all
    the same."""
    done_threshold: float | None = None
    """success_prob that counts as done, [0, 1]; default: the preset's, like all that follow."""
    done_patience: int | None = None
    """Consecutive done checks that stop an episode."""
    done_interval: int | None = None
    """Env steps between checks."""
    min_steps: int | None = None
    """The critic can't stop before this step."""
    min_value: float | None = None
    """Value that a stop demands besides, [0, 1]."""
    value_stride: int | None = None
    """Env steps between the frames of the value list."""
    plot_values: bool = True
    """Ask for the value curve of stopped episodes too: after their end, for the plots, never for the reward."""
    tensorboard: bool = False
    """Write numbers for TensorBoard too, into OUT/tensorboard, and into OUT/metrics.jsonl."""
    wandb: str | None = None
    """Send them to this project at Weights & Biases; with WANDB_MODE=offline in the environment, they stay in
    OUT/wandb."""
    start_cache: Path | None = None
    """Folder that keeps the settled starts of episodes for later runs; default: $VLAC_GYM_START_CACHE, else none."""
    torch_threads: int | None = None
    """CPU threads of a critic that runs in this process; default: 1 beside software rendering, which wants the same
    cores, unless OMP_NUM_THREADS is set; else PyTorch's own choice."""


@dataclass(frozen=True)
class _Plan:
    """What a run needs; the simulator is not started."""

    task: LiberoTask
    policy: Policy
    critic: Critic
    judged: VLACRewardWrapper[Any, Any]
    env: EpisodeVideoWrapper[Any, Any]


def run(args: Args) -> int:
    """Runs the command; see `vlac-gym rollout --help`."""
    _check(args)
    task, policy = get_task(args.task_suite, args.task_id), make_policy(args.policy)
    env = _make_env(args, policy)
    settings = {
        field.name: getattr(args, field.name)
        for field in dataclasses.fields(args)
        if field.name not in _NOT_SETTINGS
    }
    with claim_folder(args.out, resume=True, ours=RUN_FILES) as path:
        recorded_episodes(path, settings, resume=args.resume)
        critic = make_critic(args.critic)
        if args.record_critic is not None:
            critic = RecordedCritic(critic, args.record_critic)
        limit_torch_threads(args.torch_threads, renders_in_software=renders_in_software())
        judged: VLACRewardWrapper[Any, Any] = VLACRewardWrapper(
            env,
            critic,
            mode=args.mode,
            preset=args.preset,
            calibration=args.calibration,
            on_critic_mismatch=args.on_critic_mismatch,
            **cast(Any, _rule_options(args)),
        )
        who = critic.identify()  # A lost server is told before a simulator is built.
        recorded = EpisodeVideoWrapper(judged, critic_info=who)
        plan = _Plan(task, policy, critic, judged, recorded)
        folder = RunFolder(path, run=settings, critic=who, resume=args.resume)
        write_config(path, args)
        metrics = run_metrics(path, args, tensorboard=args.tensorboard, wandb=args.wandb)
        with nullcontext() if metrics is None else metrics:
            return _run(args, plan, folder, metrics)


def _run(args: Args, plan: _Plan, folder: RunFolder, metrics: MetricsWriter | None) -> int:
    status: RunStatus = "failed"
    error: str | None = None
    try:
        _run_episodes(args, plan, folder, metrics)
        status = "complete"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except VlacGymError as e:
        error = str(e)
        raise
    finally:
        with interrupts_held():
            # Each failure ended its episode, and with it the run: no recorded episode counts it.
            folder.finish(status, error, critic_failures=plan.judged.critic_failures)
            plan.env.close()
            plan.critic.close()
            print(_report(folder))
    return 0


def _check(args: Args) -> None:
    """What can be checked before a critic is loaded: a wrong argument must not cost minutes."""
    if args.episodes < 1 or args.seed < 0:
        raise ConfigError(f"Expected --episodes >= 1 and --seed >= 0, got {args.episodes} and {args.seed}.")
    if args.torch_threads is not None and args.torch_threads < 1:
        raise ConfigError(f"Expected --torch-threads >= 1, got {args.torch_threads}.")
    if args.max_episode_steps is not None and args.max_episode_steps < 1:
        raise ConfigError(f"Expected --max-episode-steps >= 1, got {args.max_episode_steps}.")
    check_critic(args.critic)
    if args.record_critic is not None and not args.record_critic.parent.is_dir():
        raise ConfigError(f"Expected --record-critic in an existing folder, got {args.record_critic}.")
    resolve_rule(args.preset, args.calibration, _rule_options(args), args.max_episode_steps)
    require_video_packages()
    check_dashboards(tensorboard=args.tensorboard, wandb=args.wandb)


def _rule_options(args: Args) -> dict[str, Any]:
    return {name: getattr(args, name) for name in _RULE_OPTIONS if getattr(args, name) is not None}


def _make_env(args: Args, policy: Policy) -> gym.Env[Any, Any]:
    task = get_task(args.task_suite, args.task_id)
    sees_wrist = args.wrist or "wrist" in getattr(policy, "cameras", ())
    return gym.make(
        LIBERO_ENV_ID,
        # Ours and not the env's own: this one also holds in eval mode, for every suite.
        max_episode_steps=args.max_episode_steps or task.max_episode_steps,
        disable_env_checker=True,
        task_suite=args.task_suite,
        task_id=args.task_id,
        init_state_id=args.init_state_id,
        cameras=("agentview", "wrist") if sees_wrist else ("agentview",),
        image_size=args.image_size,
        start_cache=None if args.start_cache is None else str(args.start_cache),
    )


def _run_episodes(args: Args, plan: _Plan, folder: RunFolder, metrics: MetricsWriter | None) -> None:
    plan.env.set_wrapper_attr(
        "num_episodes", folder.num_episodes
    )  # a privileged critic's errors go on with them
    limit = args.max_episode_steps or plan.task.max_episode_steps
    with RolloutProgress(args.episodes, limit) as progress:
        for number in range(folder.num_episodes, args.episodes):
            seed = args.seed + number
            init_state_id = number % plan.task.num_init_states
            if args.init_state_id is not None:
                init_state_id = args.init_state_id
            progress.begin_episode(number)
            start, trace = _play(plan, seed, init_state_id, progress.step)
            progress.write_files()
            if args.plot_values:
                trace = _with_plot_values(trace, start, plan.critic, plan.judged.rule.value_stride)
            with interrupts_held():
                folder.add_episode(
                    trace, with_video=args.video, with_frames=args.frames, extra={"seed": seed}
                )
                if metrics is not None:
                    metrics.write(folder.num_episodes, folder.summary["metrics"])
            progress.end_episode(trace)


def _play(
    plan: _Plan, seed: int, init_state_id: int, on_step: Callable[[int, float | None], None]
) -> tuple[dict[str, Any], EpisodeTrace]:
    """Plays an episode; returns the info of its reset, and what happened."""
    observation, start = plan.env.reset(seed=seed, options={"init_state_id": init_state_id})
    plan.policy.reset(plan.env, seed=seed)
    info, step, is_over = start, 0, False
    while not is_over:
        observation, _, terminated, truncated, info = plan.env.step(plan.policy.act(observation, info))
        step, is_over = step + 1, terminated or truncated
        on_step(step, info.get("critic", {}).get("success_prob"))
    assert plan.env.last_episode is not None
    return start, plan.env.last_episode


def _with_plot_values(
    trace: EpisodeTrace, start: dict[str, Any], critic: Critic, stride: int
) -> EpisodeTrace:
    """Adds the value curve of an episode whose reward did not need one."""
    if trace.mode == "eval" or trace.critic.values or trace.critic.stopped_by == "critic_error":
        return trace
    steps = [*range(0, trace.num_steps, stride), trace.num_steps]
    frames = [trace.frames[step] for step in steps]
    if critic.describe().is_privileged:
        frames = _with_signals(frames, trace, start, steps)
    try:
        answers = critic.value(frames, trace.task)
        values = checked_answers(answers, len(steps), 0.0, "value")
    except CriticError as e:
        # The episode is finished and paid; only a curve of its plot is missing.
        print(f"vlac-gym rollout: no value curve in the plots: {e}", file=sys.stderr)
        return trace
    judged = dataclasses.replace(
        trace.critic,
        values=tuple(float(v) for v in values),
        value_frame_steps=tuple(steps),
        values_for="plot",
    )
    return dataclasses.replace(trace, critic=judged)


def _with_signals(
    frames: list[Frame], trace: EpisodeTrace, start: dict[str, Any], steps: list[int]
) -> list[Frame]:
    said = [(start["sim_success"], start.get("sim_goal_progress"))]
    said += [(step.sim_success, step.goal_progress) for step in trace.steps]
    infos = [
        {"success": success} | ({} if progress is None else {"goal_progress": progress})
        for success, progress in said
    ]
    signals = EpisodeSignals()
    return [signals.attach(frame, infos[step]) for frame, step in zip(frames, steps, strict=True)]


def _report(folder: RunFolder) -> str:
    lines = ["", *read_summary(folder.summary), ""]
    for episode in folder.summary["episodes"][-3:]:
        lines += [
            f"{kind:8} {folder.path / episode[kind]}"
            for kind in ("video", "frames", "plot")
            if episode.get(kind)
        ]
    lines += [f"{'summary':8} {folder.path / 'summary.json'}", f"{'page':8} {folder.path / 'index.html'}"]
    return "\n".join(lines)
