"""A critic server that shares a card with a trainer, and sleeps while that updates its policy.

    python benchmarks/sleep_around_update.py                 # nano judges LIBERO, first GPU
    python benchmarks/sleep_around_update.py --sizes 2b      # VLAC-2B's shapes, random weights
    python benchmarks/sleep_around_update.py --device cpu --sizes tiny --tasks reach:0 --in-process --image-size 16

`vlac-gym serve` runs as a process of its own; this one trains, with the rollout and the update of
`examples/train_ppo.py`, whose options follow. In turn: fixed questions, a rollout that the service judges, its update
with the critic awake, the fixed questions again, sleep, the same update from the same weights, wake, the fixed
questions a third time, and the next rollout. The fixed questions are done checks of the frames of one episode under
random actions, and pairs and a value list of some of them. Printed are the memory at each point, whether the answers
stayed the same to the bit, and what the sleep costs. The first update, in which kernels are chosen, is not timed.
"""

import argparse
import copy
import math
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from critic_speed import build_checkpoint
from rl_iteration import load_example
from served_critic import Served, serving

from vlac_gym.service.client import RemoteCritic

TRAINING = "--tasks libero_spatial:0,libero_object:0 --num-envs 8 --step-limit 80 --learn all --kl-stop inf"
"""What the example is run with where the command line says nothing else; no --kl-stop, so that updates are equally
long."""

MIB = 2**20


@dataclass(frozen=True)
class Memory:
    """At one point, in MiB; NaN where nobody tells."""

    when: str
    torch: float  # what torch holds in the server, by the server's own word
    process: float  # the server's process on the card; on a CPU its resident memory
    free: float  # of the card, for everybody


class Questions:
    """Done checks of an episode's frames; pairs of every `stride`-th, and their value list."""

    def __init__(self, frames: Sequence[np.ndarray], task: str, stride: int) -> None:
        self._frames, self._task, self._listed = frames, task, frames[::stride]

    def ask(self, critic: RemoteCritic) -> dict[str, np.ndarray]:
        """Kind -> answers, float32."""
        listed, tasks = self._listed, [self._task] * len(self._frames)
        return {
            "done checks": critic.success_prob(self._frames, tasks),
            "pairs": critic.progress(listed[:-1], listed[1:], tasks[: len(listed) - 1]),
            "values": critic.value(listed, self._task),
        }


def compared(answers: dict[str, np.ndarray], first: dict[str, np.ndarray]) -> str:
    """In words: identical, or how far apart."""
    gaps = np.abs(np.concatenate([answers[kind] - first[kind] for kind in first]))
    if not gaps.any():
        return "identical"
    return f"{np.count_nonzero(gaps)} of {len(gaps)} differ, by at most {gaps.max():.2g}"


def fixed_questions(example: Any, args: Any, count: int) -> Questions:
    """About `count` frames of the first task, whose instruction goes with them."""
    suite, task_id = args.task_list[0]
    options = {"image_size": args.image_size, "max_episode_steps": count}
    env = (
        example.ReachEnv(task_id, **options)
        if suite == "reach"
        else example.LiberoEnv(suite, task_id, **options)
    )
    observation, info = env.reset(seed=0, options={"init_state_id": 0})
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (count - 1, 7))
    seen = [observation, *(env.step(action)[0] for action in actions)]
    frames = [each["agentview_image"].copy() for each in seen]
    env.close()
    return Questions(frames, info["task"], args.value_stride)


def memory(when: str, critic: RemoteCritic, server: Served, device: torch.device) -> Memory:
    """Read now."""
    held = (critic.gpu_memory_bytes() or 0) / MIB
    if device.type == "cpu":
        return Memory(when, held, resident_mib(server.pid), math.nan)
    torch.cuda.synchronize(device)
    return Memory(when, held, on_card_mib(server.pid), torch.cuda.mem_get_info(device)[0] / MIB)


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1024


def on_card_mib(pid: int) -> float:
    """Of one process, its CUDA context included, as the driver tells; in some containers it tells nothing."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return math.nan
    rows = [line.split(",") for line in lines]
    return float(sum(float(used) for owner, used in rows if owner.strip() == str(pid))) or math.nan


class Trainer:
    """The example's run, played and updated step by step."""

    def __init__(self, example: Any, args: Any) -> None:
        self._example = example
        self.run = example.Run(args)
        self.device = self.run.device
        self._env = example.make_envs(args, self.run.actor.policy.chunk_size)
        self._start = copy.deepcopy((self.run.actor.policy.state_dict(), self.run.optimizer.state_dict()))

    def play(self) -> tuple[Any, str]:
        """A rollout's experience, and what it was in words."""
        clock = dict.fromkeys(("time/env", "time/critic", "time/policy"), 0.0)
        began = time.perf_counter()
        experience, episodes = self._example.collect(self.run, self._env, clock)
        self.run.iteration += 1
        seconds, steps = time.perf_counter() - began, sum(e.finished.num_steps for e in episodes)
        shares = f"{seconds:.2f} s, {clock['time/critic']:.2f} s of them the critic's"
        return experience, f"{len(episodes)} episodes, {steps} env steps in {shares}"

    def update(self, experience: Any) -> float:
        """One iteration's update from the weights of the start; seconds."""
        weights, moments = copy.deepcopy(self._start)
        self.run.actor.policy.load_state_dict(weights)
        self.run.optimizer.load_state_dict(moments)
        return self._timed(lambda: self._example.update(self.run, experience, only_value=False))

    def largest_change(self) -> float:
        """Of any weight, from the start until now."""
        now = self.run.actor.policy.state_dict()
        return max(
            float((now[name].float() - old.float()).abs().max()) for name, old in self._start[0].items()
        )

    def close(self) -> None:
        self._env.close()

    def _timed(self, work: Any) -> float:
        began = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - began


def seconds_of(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Cycle:
    """What one turn from a rollout to the next came to."""

    memory: list[Memory]  # awake, asleep, asleep after the update, awake again
    answers: list[dict[str, np.ndarray]]  # before the rollout, before the sleep, after the wake
    rollouts: list[str]  # before the sleep, after the wake
    chunks: int
    state: str  # the server's own word, right after the second update
    change: float  # of any weight by that update, at most
    awake_s: float  # of the update while the critic was awake
    asleep_s: float
    sleep_s: float
    wake_s: float


def go_round(critic: RemoteCritic, server: Served, questions: Questions, trainer: Trainer) -> Cycle:
    """Once through everything."""
    answers = [questions.ask(critic)]
    experience, rollout = trainer.play()
    trainer.update(experience)
    awake_s = trainer.update(experience)
    answers.append(questions.ask(critic))
    points = [memory("awake", critic, server, trainer.device)]
    sleep_s = seconds_of(critic.sleep)
    points.append(memory("asleep", critic, server, trainer.device))
    asleep_s = trainer.update(experience)
    state, change = critic.server_info()["state"], trainer.largest_change()
    points.append(memory("asleep, updated", critic, server, trainer.device))
    wake_s = seconds_of(critic.wake)
    points.append(memory("awake again", critic, server, trainer.device))
    answers.append(questions.ask(critic))
    rollouts, chunks = [rollout, trainer.play()[1]], len(experience.values)
    return Cycle(points, answers, rollouts, chunks, state, change, awake_s, asleep_s, sleep_s, wake_s)


def report(cycle: Cycle, weights: float) -> str:
    """The memory as a table in Markdown, then ratios; `weights` are bytes."""
    lines = [
        "| critic | torch in its process, MiB | its process, MiB | free on the card, MiB |",
        "|---|---|---|---|",
    ]
    for point in cycle.memory:
        cells = ("" if math.isnan(x) else f"{x:,.0f}" for x in (point.torch, point.process, point.free))
        lines.append(f"| {point.when} | {' | '.join(cells)} |")
    awake, asleep = cycle.memory[:2]
    shares = f"torch {share(asleep.torch, awake.torch)}, process {share(asleep.process, awake.process)}"
    more = "" if math.isnan(awake.free) else f"; the card has {asleep.free - awake.free:,.0f} MiB more"
    first, before, after = cycle.answers
    asked = (f"{len(x)} {kind} from {x.min():.3g} to {x.max():.3g}" for kind, x in first.items())
    cost = (cycle.sleep_s + cycle.wake_s) / cycle.asleep_s
    lines += [
        "",
        f"weights: {weights / MIB:,.0f} MiB; asleep / awake: {shares}{more}",
        f"rollout before the sleep: {cycle.rollouts[0]}",
        f"rollout after the wake: {cycle.rollouts[1]}",
        f"update of {cycle.chunks} chunks, critic {cycle.state}: weights moved by {cycle.change:.2g} at most",
        f"update, critic awake: {cycle.awake_s:.3f} s; asleep: {cycle.asleep_s:.3f} s; "
        f"asleep / awake: {cycle.asleep_s / cycle.awake_s:.2f}",
        f"sleep: {cycle.sleep_s:.3f} s; wake: {cycle.wake_s:.3f} s; both / update: {cost:.2f}",
        f"answers: {', '.join(asked)}",
        f"against the first answers, before the sleep: {compared(before, first)}; "
        f"after the wake: {compared(after, first)}",
    ]
    return "\n".join(lines)


def share(part: float, whole: float) -> str:
    return f"{part / whole:.3f}" if whole > 0 else "-"


def parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    served = parser.add_mutually_exclusive_group()
    served.add_argument("--critic-spec", help="what is served; default: nano on --device")
    served.add_argument("--sizes", choices=("2b", "tiny"), help="serve random weights in these shapes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--checks", type=int, default=64, help="frames of the fixed questions")
    return parser.parse_known_args()


def main() -> None:
    """Serves, measures, prints."""
    args, rest = parse()
    example = load_example()
    with tempfile.TemporaryDirectory() as folder:
        spec = args.critic_spec or f"nano:?device={args.device}"
        if args.sizes is not None:
            path = build_checkpoint(Path(folder) / "checkpoint", args.sizes, args.device)
            spec = f"transformers:{path}?reading=exact,out_of_scale=clip,device={args.device}"
        began = time.perf_counter()
        with serving(spec) as server:
            name = torch.cuda.get_device_name() if args.device.startswith("cuda") else "CPU"
            print(
                f"{name}, torch {torch.__version__}; {spec}, ready in {time.perf_counter() - began:.1f} s\n"
            )
            own = ["--out", f"{folder}/run", "--critic", server.url, "--device", args.device]
            own += (
                [] if args.sizes is None else ["--done-patience", "1000"]
            )  # random weights see success anywhere
            options = tyro.cli(example.Args, args=[*TRAINING.split(), *own, *rest])
            critic = RemoteCritic(server.url, timeout_s=300, deadline_s=600)
            trainer = Trainer(example, options)
            try:
                cycle = go_round(critic, server, fixed_questions(example, options, args.checks), trainer)
            finally:
                trainer.close()
            plan = critic.server_info()["info"]["details"].get("memory_plan", {})
            critic.close()
    print(report(cycle, plan.get("weights", math.nan)))


if __name__ == "__main__":
    main()
