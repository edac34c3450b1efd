"""Train a small policy by PPO or GRPO on a critic's reward, and audit the critic with the simulator while it trains.

pip install "vlac-gym[demo]"
python examples/train_ppo.py --policy runs/clone/policy --critic nano --out runs/ppo

The whole algorithm is in this file. An iteration plays episodes from chosen initial states to their ends; a decision is
a chunk of actions. OUT gets metrics.jsonl, checkpoint.pt, policy/, learning.png, index.html (docs/training.md).
"""

import copy
import io
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.envs.reach import ReachEnv
from vlac_gym.errors import ConfigError, DependencyNotInstalled, SimulatorError
from vlac_gym.extras import needs
from vlac_gym.files.atomic import write_bytes, write_text
from vlac_gym.metrics.audit import CriticAudit
from vlac_gym.metrics.episodes import EpisodeMetrics
from vlac_gym.metrics.writer import MetricsWriter, TensorBoardSink, WandbSink
from vlac_gym.reporting.training_run import write_training_report
from vlac_gym.rollout import AsyncRollout, BatchPolicy, EpisodeStart, PlayedEpisode, PolicyRow
from vlac_gym.rollout.starts import draw_states, success_rates
from vlac_gym.specs.ids import parse_ids
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.vector.finished import reward_wrapper_of
from vlac_gym.vector.warp_executor import warp_envs
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper

with needs("This example", "vlac"):
    import torch
    from torch.distributions import Normal
with needs("This example", "cli"):
    import tyro

from vlac_gym.clone.policy import ClonePolicy, load_policy, load_weights, save_policy

SHOWN = ("env/success_rate", "rollout/reward_mean", "critic/wrong_stops_per_100", "eval/success_rate")
states_of = partial(parse_ids, count=None, what="initial states")


@dataclass
class Args:
    """Options of a training run."""

    out: Path  # folder of the run
    policy: Path | None = None  # folder of the policy to start from (vlac_gym.clone); none: --learn all
    chunk_size: int = 8  # actions per decision of an untrained policy; others bring their own
    cameras: str = "agentview,wrist"  # what an untrained policy looks through
    resume: bool = False  # continue the run in OUT from its checkpoint; give the same options

    tasks: str = "libero_spatial:0,libero_spatial:3,libero_spatial:8,libero_object:0"
    """SUITE:TASK_ID of each task, shared out evenly over the envs; suite `reach` is a toy without physics"""
    train_init_states: str = "0-24"  # initial states to train on, as 0-24 or 0,3,7
    eval_init_states: str = "25-49"  # initial states to evaluate on; none of them may be trained on
    step_limit: int = 160  # env steps at which an episode ends: like any other end, worth nothing after it
    image_size: int = 256  # side of the pictures that critic and policy see, in pixels
    num_envs: int = 64  # envs at once, a multiple of the number of tasks
    envs_per_worker: int = 4  # envs of a worker process, best all of one task: it divides num_envs / tasks
    episodes_per_env: int = 1  # episodes that each env plays in an iteration
    in_process: bool = False  # step the envs in this process, for tiny runs
    scenes: Path | None = None  # play on the GPU what `vlac-gym export-scenes` wrote there (vlac-gym[warp])
    repeat_solves: bool = False  # LIBERO's physics to the bit instead of to the solver's tolerance; slower
    min_ready: int | None = None  # envs to wait for (default: all); rounding depends on timing if fewer

    critic: str = "nano"
    """spec of the critic that rewards: nano, oracle, noisy_oracle:tpr=0.9,fpr=0.01, http://HOST:8400, …; `scripted:0`
    never says done and pays every episode the same 0.5, as a control"""
    reward_preset: Literal["vlac", "sparse", "dense", "pbrs", "evolve"] = "vlac"
    """what pays: the end; only done; the change of the value at each check; potential-based shaping; milestones"""
    calibration: str | None = None  # thresholds: a report card's card.json, or `nano`; options below win
    done_threshold: float | None = None  # success probability from which a check counts as done
    done_patience: int | None = None  # consecutive done checks that stop an episode
    min_steps: int | None = None  # no stop before this env step
    done_interval: int | None = None  # env steps between checks; default: one check per chunk
    value_stride: int = 8  # env steps between the frames that a terminal value is asked about

    learn: Literal["offset", "all"] = "offset"
    """one offset for all actions of a chunk, with one noise, on a policy that stays as it is; or every weight"""
    algorithm: Literal["ppo", "grpo"] = "ppo"  # grpo: an episode's return minus its group's mean, no values
    group_size: int = 1  # neighbouring envs that play the same start; grpo needs 2 or more
    iterations: int = 50  # iterations in all, those before --resume included
    value_init_steps: int = 0  # first iterations that train only the value function (ppo)
    epochs: int = 4  # passes over an iteration's chunks
    minibatch_size: int = 512  # chunks per gradient step
    learning_rate: float = 8e-5  # of the policy (Adam); too large where train/stopped_by_kl is often 1
    warmup_steps: int = 20  # the policy's first gradient steps, over which its learning rate rises
    value_learning_rate: float = 1e-3  # of the value head
    gamma: float = 0.99  # discount per chunk
    gae_lambda: float = 0.95  # lambda of GAE, per chunk
    min_advantage_std: float = 0.02  # advantages that differ less teach nothing: they are the values' errors
    clip_low: float = 0.2  # a step's probability ratio is clipped to [1 - clip_low, 1 + clip_high]
    clip_high: float = 0.28  # larger: rare actions may become likelier (clip-higher, arXiv 2503.14476)
    value_clip: float = 10.0  # how far a value may move in an iteration before its gradient is cut
    entropy_coef: float = 0.0  # weight of the entropy; matters only with train_log_std
    kl_coef: float = 0.0  # weight of the KL divergence from the start policy
    kl_stop: float = 0.1  # KL per chunk from the policy that played, in nats, that ends an update
    max_grad_norm: float = 0.5  # gradients are scaled down to this norm
    log_std: float | None = -3.5  # log of the noise's standard deviation at the start; None: the policy's own
    train_log_std: bool = False  # let PPO change the noise

    eval_every: int = 8  # iterations between evaluations; also before the first and after the last; 0: none
    eval_episodes: int = 100  # without noise, judged by the simulator; at most one per held-out start
    audit_window: int = 200  # episodes that the audit's numbers are about
    stop_on_alarm: bool = False  # end the run when the return rises while the simulator's success falls
    max_minutes: float | None = None  # end the run before the iteration that would pass this time
    seed: int = 0  # of starts, noise and minibatches
    device: str = "auto"  # of the policy: cuda, cpu; auto takes the GPU if there is one
    tensorboard: bool = False  # write OUT/tensorboard too (needs tensorboardX)
    wandb: bool = False  # log to a W&B run on this machine too, mode offline (needs wandb)

    def __post_init__(self) -> None:
        tasks, group, count = len(self.task_list), self.group_size, self.num_envs
        if count % (tasks * group):
            raise ConfigError(
                f"Expected num_envs, a multiple of {tasks} tasks x group_size {group}, got {count}."
            )
        if self.algorithm == "grpo" and self.group_size < 2:
            raise ConfigError(f"Expected group_size >= 2 for grpo, got {self.group_size}.")
        if shared := set(states_of(self.train_init_states)) & set(states_of(self.eval_init_states)):
            raise ConfigError(f"Expected held-out states to evaluate on, but {sorted(shared)} train too.")
        if self.policy is None and self.learn == "offset":
            raise ConfigError("Expected --policy, whose actions the offset corrects, or --learn all.")

    @property
    def task_list(self) -> list[tuple[str, int]]:
        parts = (task.partition(":") for task in self.tasks.split(","))
        return [(suite, int(number)) for suite, _, number in parts]

    @property
    def envs_per_task(self) -> int:
        return self.num_envs // len(self.task_list)


# Envs


def make_envs(args: Args, chunk_size: int) -> ActionChunk:
    """The stack: envs in worker processes or on the GPU, the critic as their referee, chunks of actions around both."""
    options: dict[str, Any] = {"image_size": args.image_size, "max_episode_steps": args.step_limit}
    tasks = [args.task_list[i // args.envs_per_task] for i in range(args.num_envs)]
    libero = partial(LiberoEnv, repeat_solves=args.repeat_solves, **options)
    fns = [partial(ReachEnv, n, **options) if s == "reach" else partial(libero, s, n) for s, n in tasks]
    mode = "sync" if args.in_process else "async"
    if args.scenes is not None:
        fns, mode = warp_envs(args.scenes, tasks, pictures="torch", **options)
    env = RolloutVectorEnv(fns, mode=mode, envs_per_worker=args.envs_per_worker, autoreset_mode="Disabled")
    names = ("calibration", "value_stride", "done_threshold", "done_patience", "min_steps", "done_interval")
    rule = {name: value for name in names if (value := getattr(args, name)) is not None}
    if args.calibration is None:
        rule.setdefault("done_interval", chunk_size)
    judged = VLACRewardWrapper(
        env,
        args.critic,
        preset=args.reward_preset,
        max_episode_steps=args.step_limit,
        truncate_as_terminal=True,
        ask_window_s=math.inf if args.min_ready is None else 0.002,  # all together: the same sums every time
        **rule,
    )
    return ActionChunk(judged, chunk_size)


def plan(args: Args, states: Sequence[Sequence[int]]) -> list[EpisodeStart]:
    """A start for each of a task's states, for the task's envs; tasks take turns, so that an audit sees all of them."""
    firsts = range(0, args.num_envs, args.envs_per_task)
    own = [(range(i, i + args.envs_per_task), k) for turn in zip(*states) for i, k in zip(firsts, turn)]
    return [EpisodeStart(n, {"init_state_id": state}, envs) for n, (envs, state) in enumerate(own)]


def rollout(env: ActionChunk, act: BatchPolicy, args: Args, **options: Any) -> AsyncRollout:
    """What plays: it asks `act` for the chunks of the envs that are ready."""
    ready = args.num_envs if args.min_ready is None else args.min_ready
    return AsyncRollout(env, act, seed=args.seed, min_ready=ready, keeps_observations=False, **options)


class Actor:
    """A policy with what it needs to look and to act; the only part that knows how the policy is called."""

    def __init__(self, policy: ClonePolicy, args: Args, device: torch.device) -> None:
        self.policy, self.device, self.learn = policy.to(device), device, args.learn
        known = list(policy.tasks)
        rows = [known.index(f"{suite}:{number}") for suite, number in args.task_list]
        self.one_hot = torch.eye(len(known), device=device)[rows].repeat_interleave(args.envs_per_task, 0)

    def look(self, observations: dict[str, Any], rows: Sequence[PolicyRow]) -> dict[str, torch.Tensor]:
        """Observations as tensors, with each one's task and time in its episode."""
        keys = (*(f"{camera}_image" for camera in self.policy.cameras), "state")
        seen = {key: torch.as_tensor(observations[key], device=self.device) for key in keys}
        seen["env_steps"] = torch.tensor([row.env_steps for row in rows], device=self.device)
        return seen | {"task": self.one_hot[[row.start.envs[0] for row in rows]]}

    def __call__(self, seen: dict[str, torch.Tensor]) -> tuple[Normal, torch.Tensor, torch.Tensor]:
        """The distribution of what is drawn (B, K, 7), the values (B,), and the chunks without noise (B, T, 7).

        K is T where every action has noise of its own, or 1: the mean of a chunk is drawn, and all of it moves along.
        """
        images = {camera: seen[f"{camera}_image"] for camera in self.policy.cameras}
        means, log_std, values = self.policy(images, seen["state"], seen["task"], seen["env_steps"])
        centre = means if self.learn == "all" else means.mean(1, keepdim=True)
        return Normal(centre, log_std.exp().expand_as(centre)), values, means


def starting_policy(args: Args) -> ClonePolicy:
    """The policy of --policy, or an untrained one."""
    torch.manual_seed(args.seed)
    tasks = [f"{suite}:{number}" for suite, number in args.task_list]
    if args.policy is None:
        cameras = tuple(args.cameras.split(","))
        policy = ClonePolicy(tasks, args.chunk_size, min(args.image_size, 128), cameras)
        policy.state_std.fill_(0.2)  # positions are some tenths of a metre
    else:
        policy = load_policy(args.policy)
    if missing := set(tasks) - set(policy.tasks):
        raise ConfigError(f"Expected a policy for {sorted(missing)}, but it knows {list(policy.tasks)}.")
    if args.log_std is not None:
        policy.log_std.data.fill_(args.log_std)
    if args.learn == "offset":
        policy.requires_grad_(False).add_offset().requires_grad_(True)
        policy.value.requires_grad_(True)
    policy.log_std.requires_grad_(args.train_log_std)
    return policy


@dataclass
class Experience:
    """An iteration's M chunks; those of one episode follow each other."""

    seen: dict[str, torch.Tensor]  # (M, …)
    drawn: torch.Tensor  # (M, K, 7), see Actor
    log_probs: torch.Tensor  # (M, K), of each, summed over its 7 numbers
    values: torch.Tensor  # (M,)
    executed: torch.Tensor  # bool (M, K)
    advantages: torch.Tensor  # (M,), mean 0 and standard deviation 1, or all 0 where they say nothing
    returns: torch.Tensor  # (M,), what the values learn


def collect(run: "Run", env: ActionChunk, clock: dict[str, float]) -> tuple[Experience, list[PlayedEpisode]]:
    """Plays the iteration's episodes with noise; an episode that was lost with its simulator leaves no chunk."""
    actor, args, device = run.actor, run.args, run.device
    kept: dict[tuple[int, int], tuple[dict, torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def act(observations: dict, rows: Sequence[PolicyRow]) -> np.ndarray:
        began = time.perf_counter()
        with torch.no_grad():
            seen = actor.look(observations, rows)
            chances, values, means = actor(seen)
            noise = [row.rng.standard_normal(chances.mean.shape[1:], np.float32) for row in rows]
            drawn = chances.mean + chances.stddev * torch.as_tensor(np.stack(noise), device=device)
            log_probs = chances.log_prob(drawn).sum(-1)
            for k, row in enumerate(rows):
                own = {key: tensor[k] for key, tensor in seen.items()}
                kept[row.episode, row.step] = (own, drawn[k], log_probs[k], values[k])
            clipped = (means + drawn - chances.mean).clamp(-1.0, 1.0).cpu().numpy()
        clock["time/policy"] += time.perf_counter() - began
        return clipped

    count, states = args.num_envs * args.episodes_per_env, states_of(args.train_init_states)
    per_task = count // args.group_size // len(args.task_list)
    starts = plan(args, [draw_states(states, per_task, run.rng) for _ in args.task_list])
    numbers = {"first_episode": run.iteration * count, "group_size": args.group_size}
    began, asked_s = time.perf_counter(), env.env.critic_s
    played = list(rollout(env, act, args, starts=starts, mode="train", **numbers).episodes())
    clock["time/critic"] = env.env.critic_s - asked_s
    clock["time/env"] = max(0.0, time.perf_counter() - began - clock["time/policy"] - clock["time/critic"])
    episodes = [episode for episode in played if not episode.is_lost]
    if not episodes:
        raise SimulatorError("Every episode of this iteration was lost with its simulator.")
    chunks = [kept[e.index, t] for e in episodes for t in range(len(e.rewards))]
    seen = {key: torch.stack([chunk[0][key] for chunk in chunks]) for key in chunks[0][0]}
    drawn, log_probs, values = (torch.stack([chunk[k] for chunk in chunks]) for k in (1, 2, 3))
    rewards = np.concatenate([episode.rewards for episode in episodes])
    executed = torch.as_tensor(np.concatenate([e.executed_steps for e in episodes]), device=device)
    lengths = [len(episode.rewards) for episode in episodes]
    if args.algorithm == "grpo":
        returns, groups = [e.finished.episode_return for e in episodes], [e.group for e in episodes]
        advantages = np.repeat(group_advantages(returns, groups), lengths)
    else:
        advantages = gae(rewards, values.double().cpu().numpy(), lengths, args.gamma, args.gae_lambda)
    returns = torch.as_tensor(advantages, dtype=torch.float32, device=device) + values
    scaled = advantages - advantages.mean()
    scaled *= 0.0 if scaled.std() < args.min_advantage_std else 1.0 / (scaled.std() + 1e-8)
    ran = torch.arange(drawn.shape[1], device=device) < executed[:, None]
    return Experience(seen, drawn, log_probs, values, ran, torch.tensor(scaled).to(values), returns), episodes


def gae(rewards: np.ndarray, values: np.ndarray, lengths: Sequence[int], gamma: float, lam: float) -> Any:
    """Generalised advantages of episodes that follow each other; nothing is worth anything after an episode's end."""
    advantages, end = np.zeros(len(rewards)), 0
    for length in lengths:
        end += length
        following = following_value = 0.0
        for k in reversed(range(end - length, end)):
            delta = rewards[k] + gamma * following_value - values[k]
            following = advantages[k] = delta + gamma * lam * following
            following_value = values[k]
    return advantages


def group_advantages(returns: Sequence[float], groups: Sequence[Any]) -> np.ndarray:
    """Each episode's return minus the mean of its group; not divided by the group's deviation (arXiv 2503.20783)."""
    members = [[r for r, other in zip(returns, groups) if other == group] for group in groups]
    return np.array([r - np.mean(others) for r, others in zip(returns, members)])


# Learning


def update(run: "Run", data: Experience, *, only_value: bool) -> dict[str, float]:
    """Epochs of minibatches on one iteration's chunks; means over the gradient steps."""
    actor, args, optimizer = run.actor, run.args, run.optimizer
    policy_group, value_group = optimizer.param_groups
    parameters = policy_group["params"] + value_group["params"]
    seen_metrics: list[dict[str, float]] = []
    count = -(-len(data.values) // args.minibatch_size)
    for _ in range(args.epochs):
        for rows in np.array_split(run.rng.permutation(len(data.values)), count):
            index = torch.as_tensor(rows, device=actor.device)
            seen = {key: tensor[index] for key, tensor in data.seen.items()}
            chances, values, _ = actor(seen)
            executed = data.executed[index].float()  # (B, K)
            log_ratio = (chances.log_prob(data.drawn[index]).sum(-1) - data.log_probs[index]) * executed
            ratio = log_ratio.exp()
            kl = (ratio - 1.0 - log_ratio).sum(-1).mean().item()  # Schulman's estimate, over a chunk
            if kl > args.kl_stop:
                return average(seen_metrics) | {"train/kl": kl, "train/stopped_by_kl": 1.0}
            advantages = data.advantages[index, None]
            clipped = ratio.clamp(1.0 - args.clip_low, 1.0 + args.clip_high)
            gains = torch.min(ratio * advantages, clipped * advantages)
            policy_loss = -(gains * executed).sum() / executed.sum()
            old, returns = data.values[index], data.returns[index]
            near_old = values.clamp(old - args.value_clip, old + args.value_clip)
            value_loss = 0.5 * torch.max((values - returns) ** 2, (near_old - returns) ** 2).mean()
            loss = value_loss if args.algorithm == "ppo" else 0.0 * value_loss
            if not only_value:
                loss = loss + policy_loss - args.entropy_coef * chances.entropy().sum(-1).mean()
                if run.start is not None:
                    from_start = torch.distributions.kl_divergence(chances, run.start(seen)[0]).sum(-1)
                    loss = loss + args.kl_coef * (from_start * executed).sum() / executed.sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for parameter in policy_group["params"] if only_value or not data.advantages.any() else ():
                parameter.grad = None
            norm = torch.nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)
            optimizer.step()
            if not only_value:
                run.warmup.step()
            clips = (((ratio != clipped) * executed).sum() / executed.sum()).item()
            row = {"policy_loss": policy_loss.item(), "value_loss": value_loss.item(), "kl": kl}
            row |= {"clip_fraction": clips, "grad_norm": float(norm), "stopped_by_kl": 0.0}
            seen_metrics.append(row)
    return average(seen_metrics)


def average(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {f"train/{key}": float(np.mean([row[key] for row in rows])) for row in rows[:1] for key in row}


def evaluate(env: ActionChunk, actor: Actor, args: Args) -> dict[str, float | None]:
    """Simulator success without noise, in eval mode, one episode per held-out start."""
    per_task = -(-args.eval_episodes // len(args.task_list))
    starts = plan(args, [states_of(args.eval_init_states)[:per_task]] * len(args.task_list))

    def act(observations: dict, rows: Sequence[PolicyRow]) -> np.ndarray:
        with torch.no_grad():
            return actor(actor.look(observations, rows))[2].clamp(-1.0, 1.0).cpu().numpy()

    began = time.perf_counter()
    names = [f"{suite}_{task_id}" for suite, task_id in args.task_list for _ in range(args.envs_per_task)]
    rates = success_rates(rollout(env, act, args, starts=starts, mode="eval").episodes(), names)
    return rates | {"time/eval": time.perf_counter() - began}


# The run


class Run:
    """What a run remembers from one iteration to the next, and its files."""

    def __init__(self, args: Args) -> None:
        self.args = args
        use_gpu = args.device == "auto" and torch.cuda.is_available()
        self.device = torch.device("cuda" if use_gpu else "cpu" if args.device == "auto" else args.device)
        policy = starting_policy(args)
        start = copy.deepcopy(policy).requires_grad_(False)
        self.start = Actor(start, args, self.device) if args.kl_coef else None
        self.actor = Actor(policy, args, self.device)
        values = list(policy.value.parameters())
        others = [p for p in policy.parameters() if p.requires_grad and all(p is not v for v in values)]
        rates = ((others, args.learning_rate), (values, args.value_learning_rate))
        self.optimizer = torch.optim.Adam([{"params": p, "lr": rate} for p, rate in rates], eps=1e-5)
        # Adam's first steps are as long as all others, whatever the gradient, and alone may pass kl_stop.
        shares = (lambda steps: min(1.0, (steps + 1) / max(1, args.warmup_steps)), lambda steps: 1.0)
        self.warmup = torch.optim.lr_scheduler.LambdaLR(self.optimizer, shares)
        self.rng = np.random.default_rng(args.seed)
        self.audit = CriticAudit(args.audit_window)
        self.iteration = self.env_steps = 0

    def save(self) -> None:
        """Everything that the next iteration depends on, whole or not at all."""
        buffer = io.BytesIO()
        state = {
            "policy": self.actor.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "warmup": self.warmup.state_dict(),
            "numpy_rng": self.rng.bit_generator.state,
            "audit": self.audit.state_dict(),
            "progress": (self.iteration, self.env_steps),
        }
        torch.save(state, buffer)
        write_bytes(self.args.out / "checkpoint.pt", buffer.getvalue())
        save_policy(self.actor.policy, self.args.out / "policy")

    def load(self) -> None:
        """Goes on from the checkpoint."""
        state = torch.load(self.args.out / "checkpoint.pt", map_location=self.device, weights_only=True)
        load_weights(self.actor.policy, state["policy"], self.args.out / "checkpoint.pt")
        self.optimizer.load_state_dict(state["optimizer"])
        self.warmup.load_state_dict(state["warmup"])
        self.rng.bit_generator.state = state["numpy_rng"]
        self.audit.load_state_dict(state["audit"])
        self.iteration, self.env_steps = state["progress"]

    def iterate(self, env: ActionChunk) -> dict[str, float | None]:
        """One iteration: play, audit, learn."""
        clock = dict.fromkeys(("time/env", "time/critic", "time/policy"), 0.0)
        experience, episodes = collect(self, env, clock)
        metrics = EpisodeMetrics()
        for episode in episodes:
            episode.finished.add_to(metrics)
            episode.finished.add_to(self.audit)
        only_value = self.args.algorithm == "ppo" and self.iteration < self.args.value_init_steps
        began = time.perf_counter()
        learned = update(self, experience, only_value=only_value)
        self.iteration += 1
        self.env_steps += sum(episode.finished.num_steps for episode in episodes)
        counters = reward_wrapper_of(env).critic_counters
        return (metrics.compute() | self.audit.compute() | counters | learned | clock) | {
            "time/update": time.perf_counter() - began,
            "rollout/episodes": float(len(episodes)),
            "train/iteration": float(self.iteration),
        }


def train(args: Args) -> None:
    """The outer loop: iterate, evaluate, write, until the iterations or the time are up."""
    began, slowest = time.monotonic(), 0.0
    if not args.resume and (args.out / "metrics.jsonl").exists():
        raise ConfigError(f"Expected a new folder, but {args.out} holds a run. Continue it with --resume.")
    run = Run(args)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.resume:
        run.load()
    write_text(args.out / "config.json", json.dumps(asdict(args), indent=2, default=str))
    sinks = [TensorBoardSink(args.out / "tensorboard")] if args.tensorboard else []
    sinks += [WandbSink(project="vlac-gym", mode="offline", dir=str(args.out))] if args.wandb else []
    env = make_envs(args, run.actor.policy.chunk_size)
    with MetricsWriter(args.out, sinks, last_step=run.env_steps) as writer:
        try:
            if args.eval_every and run.iteration == 0:
                writer.write(0, evaluate(env, run.actor, args))
            while run.iteration < args.iterations:
                before = time.monotonic()
                if args.max_minutes is not None and before - began + slowest > 60 * args.max_minutes:
                    print(f"Time is up after iteration {run.iteration}; continue with --resume")
                    break
                metrics = run.iterate(env)
                is_last = run.iteration == args.iterations
                if args.eval_every and (run.iteration % args.eval_every == 0 or is_last):
                    metrics |= evaluate(env, run.actor, args)
                slowest = max(slowest, time.monotonic() - before)
                writer.write(run.env_steps, metrics | {"time/iteration": time.monotonic() - before})
                run.save()
                told = [f"{name} {metrics[name]:.3f}" for name in SHOWN if metrics.get(name) is not None]
                print(f"iteration {run.iteration} | {run.env_steps} env steps", *told, sep=" | ", flush=True)
                if (alarm := run.audit.alarm_text()) is not None:
                    print(f"ALARM: {alarm}", flush=True)
                    if args.stop_on_alarm:
                        break
        finally:
            env.close()
    try:
        print(f"See {write_training_report(args.out)}")
    except DependencyNotInstalled as e:
        print(f"No picture of the run: {e}")


if __name__ == "__main__":
    train(tyro.cli(Args, description=__doc__))
