"""How much of what N independent processes do a vector env keeps: env steps per second, side by side in one run.

    python benchmarks/vector_scaling.py --cores 2 --envs 2 8 --critics scripted          # here
    python benchmarks/vector_scaling.py --cores 16 --envs 16 64 --critics scripted nano sleep --json out.jsonl

The baseline are `--cores` processes that each play one env with random actions, without any vector env or critic: a
chunk of actions, one look, and a reset where the step limit is reached. Against it `make_vec`'s envs under
`VLACRewardWrapper` and `ActionChunk`, in `--cores` workers: in lockstep (`sync`), as two groups of a
`PipelinedRollout` (`pipelined`), and each at its own pace (`ready`: `send` and `recv`). Step limits differ from env
to env, and no critic ends an episode (`done_threshold` 1.0), so that all play episodes of the same lengths; the
critic checks every `--done-interval` steps.

Critics: `none`, `scripted` (no time at all), `sleep` (waits as VLAC-2B's shapes take, see timed_critic.py), `nano`
(`--nano-spec` chooses its device).

A line per measurement says what part of the baseline is lost, and where: `busy` is the workers' processor time per
second and worker, `ms/step` their processor time per env step, each beside the baseline's; their product is the
ratio. `main` is this process's processor time per second (it shares the cores), `critic` the share of time in which a
call was under way, `batch` frames and pairs per call. `--render-processes 0 1` plays everything with pictures that the
workers draw, and again with pictures that one process draws for all; `drawing` is its processor time per second. Each
measurement takes `--seconds`; what `--limit-s` leaves no time for is skipped and named.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from env_parts import Stopwatch
from env_speed import describe_machine
from timed_critic import TimedCritic

from vlac_gym.critic import make_critic
from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.rollout import PipelinedRollout
from vlac_gym.types import CriticInfo
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper

CAMERAS = {1: ("agentview",), 2: ("agentview", "wrist")}
CRITICS = ("none", "scripted", "sleep", "nano")
WAYS = ("sync", "ready", "pipelined")
WARM_CHUNKS = 3


class ConstantCritic:
    """Never sees success, and takes no time."""

    def success_prob(self, frames: Any, tasks: Any) -> np.ndarray:
        return np.full(len(frames), 0.1, np.float32)

    def progress(self, before: Any, after: Any, tasks: Any, references: Any = None) -> np.ndarray:
        return np.zeros(len(after), np.float32)

    def value(self, frames: Any, task: str, references: Any = None) -> np.ndarray:
        return np.full(len(frames), 0.5, np.float32)

    def describe(self) -> CriticInfo:
        return CriticInfo("constant")

    def close(self) -> None:
        """Holds nothing."""


class ClockedCritic:
    """A critic, and how long its calls took and how many pictures they brought."""

    def __init__(self, critic: Any) -> None:
        self.critic = critic
        self.busy_s, self.num_calls, self.num_frames = 0.0, 0, 0

    def success_prob(self, frames: Any, tasks: Any) -> np.ndarray:
        with self._clock(len(frames)):
            return self.critic.success_prob(frames, tasks)

    def progress(self, before: Any, after: Any, tasks: Any, references: Any = None) -> np.ndarray:
        raise AssertionError("the rule of this benchmark asks for no pairs")

    def value(self, frames: Any, task: str, references: Any = None) -> np.ndarray:
        with self._clock(len(frames)):
            return self.critic.value(frames, task, references)

    def __getattr__(self, name: str) -> Any:
        if name != "values":
            return getattr(self.critic, name)
        values = self.critic.values  # no attribute where the critic has none

        def clocked(episodes: Any, tasks: Any, references: Any = None) -> Any:
            with self._clock(sum(map(len, episodes))):
                return values(episodes, tasks, references)

        return clocked

    @contextmanager
    def _clock(self, num_frames: int) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.busy_s += time.perf_counter() - begin
        self.num_calls, self.num_frames = self.num_calls + 1, self.num_frames + num_frames


def make_env(args: argparse.Namespace, cameras: int, i: int) -> LiberoEnv:
    """Env i, whose episodes begin alike and end at its own limit."""
    return LiberoEnv(
        args.suite,
        args.task,
        init_state_id=i % 50,
        cameras=CAMERAS[cameras],
        image_size=args.image_size,
        max_episode_steps=args.limits[i % len(args.limits)],
    )


# N processes on their own.


class Independent:
    """Processes that each play one env at a time, when told to."""

    def __init__(self, args: argparse.Namespace, cameras: int, pinned: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for number in range(args.cores):
            here, there = context.Pipe()
            process = context.Process(
                target=_play_alone, args=(there, args, cameras, number, pinned), daemon=True
            )
            process.start()
            self._pipes.append(here)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def measure(self, chunk: int, seconds: float) -> dict[str, float]:
        for pipe in self._pipes:
            pipe.send((chunk, seconds))
        parts = [pipe.recv() for pipe in self._pipes]
        steps, cpu_s = (sum(part[key] for part in parts) for key in ("steps", "cpu_s"))
        return {
            "steps_per_s": sum(part["steps"] / part["clock_s"] for part in parts),
            "busy": cpu_s / sum(part["clock_s"] for part in parts),
            "cpu_ms_per_step": 1e3 * cpu_s / steps,
            "look_ms": 1e3 * sum(part["look_s"] for part in parts) / sum(part["looks"] for part in parts),
            "reset_ms": 1e3
            * sum(part["reset_s"] for part in parts)
            / max(1, sum(part["resets"] for part in parts)),
        }

    def close(self) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join(20)
            process.kill()


def _play_alone(pipe: Any, args: argparse.Namespace, cameras: int, number: int, pinned: bool) -> None:
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    if pinned:
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[number % len(allowed)]})
    from vlac_gym.envs.gl import spread_rendering

    spread_rendering(number)
    # The limits are those of the envs that a worker of the vector env plays in turn.
    share = max(1, max(args.envs) // args.cores)
    limits = itertools.cycle([args.limits[(number * share + k) % len(args.limits)] for k in range(share)])
    env = LiberoEnv(
        args.suite,
        args.task,
        init_state_id=number % 50,
        cameras=CAMERAS[cameras],
        image_size=args.image_size,
        max_episode_steps=10**6,
    )
    env.reset(seed=0)
    rng = np.random.default_rng(number)
    for action in rng.uniform(
        -1, 1, (WARM_CHUNKS * 8, 7)
    ):  # the first steps compile, or load what was compiled
        env.step(action)
    env.reset(seed=0)
    pipe.send("ready")
    while (told := pipe.recv()) is not None:
        chunk, seconds = told
        count = {"steps": 0, "look_s": 0.0, "looks": 0, "reset_s": 0.0, "resets": 0}
        watch, left = Stopwatch(), next(limits)
        while (read := watch.read())["clock_s"] < seconds:
            for action in rng.uniform(-1, 1, (min(chunk, left), 7)):
                env.step_unrendered(action)
                count["steps"] += 1
                left -= 1
            begin = time.perf_counter()
            env.observe()
            count["look_s"], count["looks"] = (
                count["look_s"] + time.perf_counter() - begin,
                count["looks"] + 1,
            )
            if not left:
                begin = time.perf_counter()
                env.reset()
                left = next(limits)
                count["reset_s"] += time.perf_counter() - begin
                count["resets"] += 1
        pipe.send(count | read)
    env.close()


# Vector envs.


def judged(
    env: RolloutVectorEnv, critic: Any, chunk: int, args: argparse.Namespace, first: int = 0
) -> ActionChunk:
    if critic is None:
        return ActionChunk(env, chunk)
    options = {"done_threshold": 1.0, "done_interval": args.done_interval, "value_stride": args.done_interval}
    wrapped = VLACRewardWrapper(
        env, critic, first_env_index=first, ask_window_s=args.window_ms / 1e3, **options
    )
    return ActionChunk(wrapped, chunk)


def play_sync(env: ActionChunk, chunk: int, args: argparse.Namespace) -> Iterator[int]:
    """Executed env steps of each vector step, without end."""
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    while True:
        time.sleep(args.policy_ms / 1e3)
        infos = env.step(rng.uniform(-1, 1, (env.num_envs, chunk, 7)))[4]
        yield int(infos["chunk"]["executed_steps"].sum())


def play_ready(env: ActionChunk, chunk: int, args: argparse.Namespace) -> Iterator[int]:
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    env.send(rng.uniform(-1, 1, (env.num_envs, chunk, 7)), np.arange(env.num_envs))
    try:
        while True:
            batch = env.recv(args.min_ready)
            time.sleep(args.policy_ms / 1e3)
            env.send(rng.uniform(-1, 1, (len(batch.env_ids), chunk, 7)), batch.env_ids)
            yield int(batch.infos["chunk"]["executed_steps"].sum())
    finally:
        env.recv(env.num_envs)


def play_pipelined(groups: list[ActionChunk], chunk: int, args: argparse.Namespace) -> Iterator[int]:
    rng = np.random.default_rng(0)

    def policy(observations: Any, infos: Any, group: int) -> np.ndarray:
        time.sleep(args.policy_ms / 1e3)
        return rng.uniform(-1, 1, (groups[group].num_envs, chunk, 7))

    for step in PipelinedRollout(groups, policy).run(10**9, seed=0):
        yield int(step.infos["chunk"]["executed_steps"].sum())


def measure(
    playing: Iterator[int], envs: list[Any], critic: ClockedCritic | None, args: argparse.Namespace
) -> dict[str, float]:
    """Plays for `--seconds`, after a while in which everything starts."""
    num_envs = sum(env.num_envs for env in envs)
    warm, wanted = 0, WARM_CHUNKS * num_envs
    while warm < wanted:
        warm += max(1, next(playing))
    pids = tuple(pid for env in envs for pid in env.unwrapped.worker_pids)
    if critic is not None:
        critic.busy_s, critic.num_calls, critic.num_frames = 0.0, 0, 0
    render_pids = tuple(pid for env in envs for pid in env.unwrapped.render_pids)
    everything, main, drawing, steps, rounds = Stopwatch(pids), Stopwatch(), Stopwatch(render_pids), 0, 0
    while (read := main.read())["clock_s"] < args.seconds:
        steps, rounds = steps + next(playing), rounds + 1
    read, both, drawn = main.read(), everything.read(), drawing.read()
    playing.close()  # type: ignore[attr-defined]
    worker_cpu_s = both["cpu_s"] - read["cpu_s"]
    result = {
        "steps_per_s": steps / read["clock_s"],
        "busy": worker_cpu_s / read["clock_s"] / args.cores,
        "cpu_ms_per_step": 1e3 * worker_cpu_s / max(1, steps),
        "main": read["cpu_s"] / read["clock_s"],
        "rows_per_round": steps / max(1, rounds),
    }
    if render_pids:
        result["drawing"] = (drawn["cpu_s"] - read["cpu_s"]) / read["clock_s"]
    if critic is not None:
        result |= {
            "critic": critic.busy_s / read["clock_s"],
            "frames_per_call": critic.num_frames / max(1, critic.num_calls),
            "critic_ms": 1e3 * critic.busy_s / max(1, critic.num_calls),
        }
    return result


def make_vector_envs(
    args: argparse.Namespace, cameras: int, num_envs: int, groups: int, render_processes: int
) -> list[RolloutVectorEnv]:
    """As many groups, which share the envs and the workers; each group has its own processes that draw."""
    count = num_envs // groups
    options: dict[str, Any] = {
        "autoreset_mode": "SameStep",
        "envs_per_worker": max(1, num_envs // args.cores),
        "pin_workers": args.pin,
        "render_processes": render_processes,
    }
    return [
        RolloutVectorEnv([partial(make_env, args, cameras, g * count + i) for i in range(count)], **options)
        for g in range(groups)
    ]


def make_critics(args: argparse.Namespace) -> dict[str, ClockedCritic | None]:
    makers = {
        "none": lambda: None,
        "scripted": ConstantCritic,
        "sleep": lambda: TimedCritic(args.sleep),
        "nano": lambda: make_critic(args.nano_spec),
    }
    made = {name: makers[name]() for name in args.critics}
    for critic in made.values():
        if hasattr(critic, "warm_up"):
            critic.warm_up()
    return {name: None if critic is None else ClockedCritic(critic) for name, critic in made.items()}


class Run:
    """The measurements of a run, printed as they are made.

    Args:
        args: The command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.until_s = time.monotonic() + args.limit_s
        self.skipped: list[str] = []

    def has_time(self, what: str) -> bool:
        if time.monotonic() < self.until_s:
            return True
        self.skipped.append(what)
        return False

    def show(self, base: dict[str, float] | None, result: dict[str, float], **what: Any) -> None:
        line = what | {name: round(value, 4) for name, value in result.items()}
        text = f"{what['way']:11} {what['envs']:3} envs, {what['cameras']} cam, chunk {what['chunk']}"
        text += f", {what['critic_name']:8} {result['steps_per_s']:7.0f} steps/s"
        if base is not None:
            line["ratio"] = round(result["steps_per_s"] / base["steps_per_s"], 4)
            line["lost_idle"] = round(1 - result["busy"] / base["busy"], 4)
            line["lost_slower_steps"] = round(1 - base["cpu_ms_per_step"] / result["cpu_ms_per_step"], 4)
            text += f" ratio {line['ratio']:.2f} | busy {result['busy']:.2f} of {base['busy']:.2f}"
            text += f", ms/step {result['cpu_ms_per_step']:.1f} of {base['cpu_ms_per_step']:.1f}"
            if "drawing" in result:
                text += f", drawing {result['drawing']:.2f} in {what['render_processes']} per group"
            text += f", main {result['main']:.2f}, steps/round {result['rows_per_round']:.0f}"
            if "critic" in result:
                text += f", critic {result['critic']:.2f} ({result['critic_ms']:.1f} ms"
                text += f", batch {result['frames_per_call']:.0f})"
        else:
            text += f" busy {result['busy']:.2f}, ms/step {result['cpu_ms_per_step']:.1f}"
            text += f", look {result['look_ms']:.1f} ms, reset {result['reset_ms']:.0f} ms"
        print(text, flush=True)
        if self.args.json:
            with self.args.json.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def block(self, cameras: int, num_envs: int, critics: dict[str, ClockedCritic | None]) -> None:
        """All ways, chunks and critics of one number of envs, with the baseline before and after."""
        args = self.args
        bases: dict[int, list[dict[str, float]]] = {chunk: [] for chunk in args.chunks}

        def measure_baseline() -> None:
            alone = Independent(args, cameras, args.pin)
            for chunk in args.chunks:
                bases[chunk].append(alone.measure(chunk, args.seconds))
                self.show(
                    None,
                    bases[chunk][-1],
                    way="independent",
                    envs=args.cores,
                    cameras=cameras,
                    chunk=chunk,
                    critic_name="none",
                )
            alone.close()

        measure_baseline()
        groups_of_ways = (("sync", "ready"), ("pipelined",))
        for ways, render_processes in itertools.product(groups_of_ways, args.render_processes):
            ways = tuple(way for way in ways if way in args.ways)
            name = f"{'/'.join(ways)}, {num_envs} envs, {cameras} cameras, {render_processes} that draw"
            if not ways or not self.has_time(name):
                continue
            groups = 2 if "pipelined" in ways else 1
            envs = make_vector_envs(args, cameras, num_envs, groups, render_processes)
            for chunk, (critic_name, critic), way in itertools.product(args.chunks, critics.items(), ways):
                if self.has_time(f"{name}, chunk {chunk}, {critic_name}, {way}"):
                    result = self._one(way, envs, chunk, critic)
                    what = {
                        "way": way,
                        "envs": num_envs,
                        "cameras": cameras,
                        "chunk": chunk,
                        "critic_name": critic_name,
                        "render_processes": render_processes,
                    }
                    self.show(bases[chunk][0], result, **what)
            for env in envs:
                env.close()
        if args.baseline_again and self.has_time(f"baseline again, {num_envs} envs, {cameras} cameras"):
            measure_baseline()

    def _one(
        self, way: str, envs: list[RolloutVectorEnv], chunk: int, critic: ClockedCritic | None
    ) -> dict[str, float]:
        args = self.args
        groups = [judged(env, critic, chunk, args, first=g * envs[0].num_envs) for g, env in enumerate(envs)]
        if way == "pipelined":
            return measure(play_pipelined(groups, chunk, args), groups, critic, args)
        play = {"sync": play_sync, "ready": play_ready}[way]
        return measure(play(groups[0], chunk, args), groups, critic, args)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cores", type=int, default=len(os.sched_getaffinity(0)), help="processes, and workers"
    )
    parser.add_argument("--envs", type=int, nargs="+", help="envs; cores and 4 times as many by default")
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 2], choices=(1, 2))
    parser.add_argument("--chunks", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--critics", "--critic", nargs="+", default=["scripted"], choices=CRITICS)
    parser.add_argument("--nano-spec", default="nano", help="e.g. nano?device=cuda")
    parser.add_argument("--sleep", default="17,4.4", help="A,B: the sleeping critic takes A + B * frames ms")
    parser.add_argument(
        "--limits", type=int, nargs="+", default=[40, 80, 120, 160], help="step limits, in turn"
    )
    parser.add_argument("--done-interval", type=int, default=8)
    parser.add_argument("--min-ready", type=int, default=1, help="of recv")
    parser.add_argument("--window-ms", type=float, default=2.0, help="ask_window_s of the wrapper")
    parser.add_argument("--policy-ms", type=float, default=0.0)
    parser.add_argument(
        "--pin", action="store_true", help="pin_workers, and the baseline's processes likewise"
    )
    parser.add_argument(
        "--render-processes", type=int, nargs="+", default=[0], help="processes that draw for the workers"
    )
    parser.add_argument("--suite", default="libero_spatial")
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=8.0, help="per measurement")
    parser.add_argument("--limit-s", type=float, default=3600.0, help="begin nothing after this time")
    parser.add_argument("--baseline-again", action="store_true", help="also after each block")
    parser.add_argument("--json", type=Path, help="append a line per measurement")
    args = parser.parse_args()
    args.envs = args.envs or [args.cores, 4 * args.cores]
    if bad := [n for n in args.envs if n % args.cores]:
        parser.error(f"--envs must be multiples of --cores {args.cores}, got {bad}")
    if "pipelined" in args.ways and args.cores % 2:
        parser.error(f"--ways pipelined needs an even number of cores, got {args.cores}")
    return args


def main() -> None:
    args = parse()
    print(describe_machine(), flush=True)
    run, critics = Run(args), make_critics(args)
    for cameras, num_envs in itertools.product(args.cameras, args.envs):
        if run.has_time(f"{num_envs} envs, {cameras} cameras"):
            run.block(cameras, num_envs, critics)
    for what in run.skipped:
        print(f"skipped, out of time: {what}", file=sys.stderr)


if __name__ == "__main__":
    main()
