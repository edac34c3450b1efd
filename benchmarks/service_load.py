"""64 simulated envs against a critic server: bytes per step, latency, and throughput against two others.

    python benchmarks/service_load.py                                # tiny checkpoint, CPU
    python benchmarks/service_load.py --critic timed:17,4.4          # no model: waits like a GPU, see TimedCritic
    python benchmarks/service_load.py --sizes 2b --device cuda:0 --dtype bfloat16   # VLAC-2B, random weights
    python benchmarks/service_load.py --critic transformers:PATH

Every env is judged at each step (one fresh frame) and gets a value list over every fifth frame at its end.
Measured on the same frames: the critic in this process, a full batch a call; this package's server
with worker processes; and the obvious server of `obvious_server.py`: one request per frame, a PNG in base64 in JSON,
one call of the model per request: transformers' `generate`, and, to tell the service's share of the gain from the
engine's, this package's engine without and with `warm_up` (on a GPU it compiles kernels and records graphs, as the
service does, and as is done in this process). A first pass over other frames does not count.
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from obvious_server import OBVIOUS, naive_server, to_base64
from served_critic import serving
from timed_critic import register_timed, warm_up

from vlac_gym.critic.base import BaseCritic
from vlac_gym.critic.registry import make_critic
from vlac_gym.service.client import RemoteCritic

TASK = "pick up the black bowl and place it on the plate"
VALUE_STRIDE = 5


@dataclass(frozen=True)
class Load:
    """What one worker did: seconds of each step, bytes of request bodies, when it began and ended."""

    step_seconds: list[float]
    bytes_sent: int
    started_at: float
    ended_at: float


def episode_frame(env: int, step: int, size: int) -> np.ndarray:
    """A frame that compresses like a rendered one: a smooth table, a moving block, a little grain."""
    rng = np.random.default_rng((env, step))
    y, x = np.mgrid[0:size, 0:size]
    frame = np.stack([120 + 40 * y / size, 90 + 30 * x / size, 70 + 0 * x], axis=-1)
    left, top = (3 * step + 11 * env) % (size // 2), (7 * env) % (size // 2)
    frame[top : top + size // 5, left : left + size // 5] = (30, 30, 35)
    frame += rng.integers(-2, 3, (size, size, 1))
    return np.clip(frame, 0, 255).astype(np.uint8)


def make_frames(envs: range, steps: int, size: int) -> list[list[np.ndarray]]:
    """Frames by env and step, made before the clock starts."""
    return [[episode_frame(env, step, size) for step in range(steps)] for env in envs]


def warm_up_envs(envs: range) -> range:
    """Envs of a first pass, whose time does not count: whatever is compiled at first use, is compiled by then."""
    return range(envs.start + 10_000, envs.stop + 10_000)


def run_episodes(critic: BaseCritic, frames: list[list[np.ndarray]], wait: Callable[[], None]) -> Load:
    """Judges the envs in lockstep, as a vector env does: one question per step, one for all values."""
    tasks = [TASK] * len(frames)
    step_seconds: list[float] = []
    wait()
    started_at = time.time()
    for step in range(len(frames[0])):
        begin = time.perf_counter()
        critic.success_prob([episode[step] for episode in frames], tasks)
        step_seconds.append(time.perf_counter() - begin)
    critic.values([episode[::VALUE_STRIDE] for episode in frames], tasks)
    return Load(step_seconds, 0, started_at, time.time())


def service_worker(url: str, envs: range, args: argparse.Namespace, barrier: Any, results: Any) -> None:
    """One rollout worker of the service."""
    critic = RemoteCritic(url, timeout_s=300, deadline_s=600, encoding=args.encoding)
    others = make_frames(warm_up_envs(envs), args.steps, args.image_size)
    frames = make_frames(envs, args.steps, args.image_size)
    run_episodes(critic, others, barrier.wait)
    sent = critic.statistics["bytes_sent"]
    load = run_episodes(critic, frames, barrier.wait)
    sent = critic.statistics["bytes_sent"] - sent
    results.put(Load(load.step_seconds, sent, load.started_at, load.ended_at))
    critic.close()


def naive_worker(url: str, envs: range, args: argparse.Namespace, barrier: Any, results: Any) -> None:
    """One rollout worker of the obvious server: a thread per env, a request per frame."""
    others = make_frames(warm_up_envs(envs), args.naive_steps, args.image_size)
    frames = make_frames(envs, args.naive_steps, args.image_size)
    with httpx.Client(timeout=600, trust_env=False, limits=httpx.Limits(max_connections=None)) as client:

        def post(path: str, message: dict[str, Any]) -> int:
            body = json.dumps(message).encode()
            client.post(
                url + path, content=body, headers={"content-type": "application/json"}
            ).raise_for_status()
            return len(body)

        def run_env(episode: list[np.ndarray]) -> tuple[list[float], int]:
            seconds, sent = [], 0
            for frame in episode:
                begin = time.perf_counter()
                sent += post("/done", {"image": to_base64(frame), "task": TASK})
                seconds.append(time.perf_counter() - begin)
            images = [to_base64(frame) for frame in episode[::VALUE_STRIDE]]
            sent += post("/value", {"images": images, "task": TASK})
            return seconds, sent

        with ThreadPoolExecutor(len(envs)) as pool:
            list(pool.map(run_env, others))
            barrier.wait()
            started_at = time.time()
            parts = list(pool.map(run_env, frames))
        seconds = [s for part in parts for s in part[0]]
        results.put(Load(seconds, sum(part[1] for part in parts), started_at, time.time()))


def drive(worker: Callable[..., None], url: str, args: argparse.Namespace) -> list[Load]:
    """Runs the workers at the same time and collects what they did."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(args.workers), context.Queue()
    share = args.envs // args.workers
    processes = [
        context.Process(target=worker, args=(url, range(i * share, (i + 1) * share), args, barrier, results))
        for i in range(args.workers)
    ]
    for process in processes:
        process.start()
    loads = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return loads


def in_process(spec: str, args: argparse.Namespace) -> Load:
    """The critic in this process at the same batch."""
    register_timed()
    critic = make_critic(spec)
    warm_up(critic)
    frames = make_frames(range(args.envs), args.steps, args.image_size)
    others = make_frames(warm_up_envs(range(args.max_batch)), args.steps, args.image_size)
    run_episodes(critic, others, lambda: None)
    parts = [
        run_episodes(critic, frames[i : i + args.max_batch], lambda: None)
        for i in range(0, args.envs, args.max_batch)
    ]
    critic.close()
    seconds = [s for part in parts for s in part.step_seconds]
    return Load(seconds, 0, parts[0].started_at, parts[-1].ended_at)


def report(name: str, loads: list[Load], frames: int, envs_per_question: int) -> tuple[str, float]:
    """A row of the table, and frames per second."""
    seconds = max(load.ended_at for load in loads) - min(load.started_at for load in loads)
    latencies = np.array([s for load in loads for s in load.step_seconds]) * 1000
    per_step = sum(load.bytes_sent for load in loads) / frames
    rate = frames / seconds
    p50, p99 = np.percentile(latencies, [50, 99])
    row = f"| {name} | {rate:,.1f} | {p50:,.1f} | {p99:,.1f} | {per_step:,.0f} | {envs_per_question} |"
    return row, rate


def build_checkpoint(args: argparse.Namespace, folder: Path) -> Path:
    """Random weights: the tiny shapes, or VLAC-2B's as `critic_speed.py` makes them."""
    sys.path.insert(0, str(Path(__file__).parent))
    from critic_speed import build_checkpoint as build

    return build(folder / args.sizes, args.sizes, args.device)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--critic", help="spec to serve; default: a checkpoint with random weights")
    parser.add_argument("--sizes", default="tiny", help="shapes of the random weights: tiny or 2b")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--workers", type=int, default=4, help="rollout processes that share the envs")
    parser.add_argument("--steps", type=int, default=20, help="steps of each episode")
    parser.add_argument(
        "--naive-steps", type=int, default=5, help="steps against the obvious server, which is slow"
    )
    parser.add_argument(
        "--obvious", nargs="*", choices=OBVIOUS, default=list(OBVIOUS), help="what the obvious server runs"
    )
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--encoding", default="raw", help="raw, png or jpeg")
    parser.add_argument(
        "--max-batch",
        type=int,
        default=32,
        help="of the server and of the calls in this process; half the envs, so that half send while half are judged",
    )
    parser.add_argument("--max-wait-ms", type=float, default=4.0)
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON")
    return parser.parse_args()


def main() -> None:
    """Measures and prints a table in Markdown."""
    args = parse()
    with tempfile.TemporaryDirectory() as folder:
        spec = args.critic
        if spec is None:
            options = f"out_of_scale=clip,device={args.device},dtype={args.dtype}"
            spec = f"transformers:{build_checkpoint(args, Path(folder))}?{options}"
        frames, naive_frames = args.envs * args.steps, args.envs * args.naive_steps
        share = args.envs // args.workers
        local_row, local = report("in process", [in_process(spec, args)], frames, args.max_batch)
        batching = ("--max-batch", str(args.max_batch), "--max-wait-ms", str(args.max_wait_ms))
        with serving(spec, *batching) as server:
            row, rate = report("vlac-gym serve", drive(service_worker, server.url, args), frames, share)
        naive = {}
        for model in args.obvious:
            if model == "generate" and not spec.startswith("transformers:"):
                continue
            with naive_server(spec, model) as url:
                naive[model] = report(OBVIOUS[model], drive(naive_worker, url, args), naive_frames, 1)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, {args.device}; critic {spec};"
    )
    print(
        f"{args.envs} envs in {args.workers} workers, {args.steps} steps, {args.image_size} px, {args.encoding}\n"
    )
    print("| server | frames/s | p50 step ms | p99 step ms | bytes per env step | envs per request |")
    print("|---|---|---|---|---|---|")
    print(local_row, row, *(line for line, _ in naive.values()), sep="\n")
    ratios = [f"service / {OBVIOUS[model]}: {rate / other:.1f}" for model, (_, other) in naive.items()]
    print(f"\nservice / in process: {rate / local:.2f}", *ratios, sep="; ")
    if args.out is not None:
        options = {key: str(value) for key, value in vars(args).items()}
        numbers = {"in_process": local, "service": rate, "options": options}
        numbers |= {model: other for model, (_, other) in naive.items()}
        args.out.write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
