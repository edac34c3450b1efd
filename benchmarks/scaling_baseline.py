"""N processes that each play one env, without any vector env or critic: `Independent`, vector_scaling.py's baseline."""

import argparse
import itertools
import multiprocessing
import os
from typing import Any

import numpy as np
from env_parts import Stopwatch

from vlac_gym.envs.gl import spread_rendering
from vlac_gym.envs.libero import LiberoEnv

CAMERAS = {1: ("agentview",), 2: ("agentview", "wrist")}
WARM_STEPS = 24


def make_env(
    args: argparse.Namespace, cameras: int, i: int, max_episode_steps: int | None = None
) -> LiberoEnv:
    """Env i, whose episodes begin alike and end at its own limit unless another is given."""
    return LiberoEnv(
        args.suite,
        args.task,
        init_state_id=i % 50,
        cameras=CAMERAS[cameras],
        image_size=args.image_size,
        max_episode_steps=max_episode_steps or args.limits[i % len(args.limits)],
    )


class Independent:
    """Processes that each play one env when told to, and sleep otherwise.

    Args:
        args: The command line.
        cameras: Of each env.
    """

    def __init__(self, args: argparse.Namespace, cameras: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for number in range(args.cores):
            here, there = context.Pipe()
            process = context.Process(target=_play_alone, args=(there, args, cameras, number), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def measure(self, chunk: int, seconds: float) -> dict[str, float]:
        """Env steps per second of all, and per process what a step, a look and a reset take."""
        for pipe in self._pipes:
            pipe.send((chunk, seconds))
        parts = [pipe.recv() for pipe in self._pipes]
        total = {key: sum(part[key] for part in parts) for key in parts[0]}
        return {
            "steps_per_s": sum(part["steps"] / part["clock_s"] for part in parts),
            "busy": total["cpu_s"] / total["clock_s"],
            "cpu_ms_per_step": 1e3 * total["cpu_s"] / total["steps"],
            "look_ms": 1e3 * total["look_s"] / total["looks"],
            "reset_ms": 1e3 * total["reset_s"] / max(1, total["resets"]),
        }

    def close(self) -> None:
        """Ends the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join(20)
            process.kill()


def _play_alone(pipe: Any, args: argparse.Namespace, cameras: int, number: int) -> None:
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    if args.pin:
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[number % len(allowed)]})
    spread_rendering(number)
    # The limits are those of the envs that a worker of the vector env plays in turn.
    share = max(1, max(args.envs) // args.cores)
    limits = itertools.cycle([args.limits[(number * share + k) % len(args.limits)] for k in range(share)])
    env = make_env(args, cameras, number, max_episode_steps=10**6)
    env.reset(seed=0)
    rng = np.random.default_rng(number)
    for action in rng.uniform(-1, 1, (WARM_STEPS, 7)):  # the first steps compile, or load what was compiled
        env.step(action)
    pipe.send("ready")
    while (told := pipe.recv()) is not None:
        pipe.send(_play(env, rng, limits, *told))
    env.close()


def _play(env: LiberoEnv, rng: np.random.Generator, limits: Any, chunk: int, seconds: float) -> Any:
    """Chunks of random actions with a look after each, and a reset at each limit, for so many seconds."""
    count: dict[str, float] = {"steps": 0, "look_s": 0.0, "looks": 0, "reset_s": 0.0, "resets": 0}

    def timed_as(name: str, work: Any) -> None:
        watch = Stopwatch()
        work()
        count[f"{name}_s"] += watch.read()["clock_s"]
        count[f"{name}s"] += 1

    env.reset()
    watch, left = Stopwatch(), next(limits)
    while (read := watch.read())["clock_s"] < seconds:
        for action in rng.uniform(-1, 1, (min(chunk, left), 7)):
            env.step_unrendered(action)
            count["steps"] += 1
            left -= 1
        timed_as("look", env.observe)
        if not left:
            timed_as("reset", env.reset)
            left = next(limits)
    return count | read
