"""Where an iteration of examples/train_ppo.py spends its time, as shares of the iteration.

    python benchmarks/rl_iteration.py --critic nano --num-envs 8 --tasks libero_spatial:0,libero_object:0
    python benchmarks/rl_iteration.py --scenes scenes --num-envs 256 --policy runs/policy --critic 'nano?device=cuda'

The options are those of the example. After one iteration that is not counted (models are compiled in it),
`--measured` of them are timed. Critic, policy and update are what the run's own clocks say. The rest is the envs':

- in worker processes: what a worker computes on average (its processor time), split into physics and pictures by one
  env's alone in this process; and waiting: for the slowest env of each step, for envs that are over, for messages.
  With `--min-ready` critic and policy work beside the workers: what they take is told apart, and waiting is all the
  time of an iteration's play in which a worker computes nothing, be it for the critic, the policy or its last episodes;
- in worlds on a GPU (with one episode per env): waiting is the share of env steps in which an env's episode is over
  while the longest one of the worlds that move together is played; what is left is split into physics and pictures by a
  further iteration, in which each of both waits until the GPU is done with it, so that worlds of several kinds, which
  else compute side by side, take turns.
"""

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from env_parts import Stopwatch

EXAMPLE = Path(__file__).parents[1] / "examples" / "train_ppo.py"


def load_example() -> Any:
    spec = importlib.util.spec_from_file_location("train_ppo", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_ppo"] = module
    spec.loader.exec_module(module)
    return module


def picture_share(example: Any, args: Any, chunk_size: int) -> float:
    """Share of pictures in what one env computes for a chunk, alone in this process."""
    suite, task_id = args.task_list[0]
    env = example.LiberoEnv(suite, task_id, image_size=args.image_size)
    env.reset(options={"init_state_id": 0})
    env.observe()
    actions = np.random.default_rng(0).uniform(-0.3, 0.3, (40, 7))
    physics_s = pictures_s = 0.0
    for number, action in enumerate(actions, start=1):
        began = time.perf_counter()
        env.step_unrendered(action)
        physics_s += time.perf_counter() - began
        if number % chunk_size == 0:
            began = time.perf_counter()
            env.observe()
            pictures_s += time.perf_counter() - began
    env.close()
    return pictures_s / (physics_s + pictures_s)


def homes_of(env: Any) -> dict[int, Any]:
    """What moves each env's world, together with others."""
    return {i: home for i, (home, _) in env.unwrapped._executor._homes.items()}


def picture_share_of_worlds(env: Any, iterate: Callable[[], object], wait: Callable[[], object]) -> float:
    """Share of pictures in what worlds compute, while `iterate` plays them.

    Args:
        env: Has worlds on a GPU.
        iterate: Plays.
        wait: Returns when the GPU has done all that it was told.
    """
    taken = {"step": 0.0, "pictures": 0.0}

    def clocked(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            wait()
            began = time.perf_counter()
            result = work(*args, **options)
            wait()
            taken[name] += time.perf_counter() - began
            return result

        return call

    homes = {id(home): home for home in homes_of(env).values()}
    for worlds in [home._worlds for home in homes.values()]:
        for name in taken:
            setattr(worlds, name, clocked(name, getattr(worlds, name)))
    iterate()
    return taken["pictures"] / sum(taken.values())


class Played(NamedTuple):
    """One iteration's play: how long it took, and env and length in env steps of its episodes."""

    seconds: float
    episodes: list[tuple[int, int]]


@contextmanager
def recorded_play(example: Any) -> Iterator[list[Played]]:
    """The iterations that are played meanwhile."""
    iterations: list[Played] = []
    collect, make_rollout = example.collect, example.rollout
    seconds = 0.0

    def clocked(*args: Any, **options: Any) -> Any:
        rollout = make_rollout(*args, **options)
        play = rollout.episodes

        def episodes(*args: Any, **options: Any) -> Iterator[Any]:
            nonlocal seconds
            began = time.perf_counter()
            yield from play(*args, **options)
            seconds = time.perf_counter() - began

        rollout.episodes = episodes
        return rollout

    def recording(*args: Any) -> Any:
        experience, episodes = collect(*args)
        lengths = [(episode.finished.env_index, episode.finished.num_steps) for episode in episodes]
        iterations.append(Played(seconds, lengths))
        return experience, episodes

    example.collect, example.rollout = recording, clocked
    try:
        yield iterations
    finally:
        example.collect, example.rollout = collect, make_rollout


def idle_share(iterations: Sequence[Sequence[tuple[int, int]]], group_of: Mapping[int, Hashable]) -> float:
    """Share of env steps in which an env's episode is over, if a group's envs move until its longest one ends.

    Args:
        iterations: Each one's episodes, as env and length in env steps; one per env.
        group_of: Which envs move together.
    """
    played = moved = 0
    for episodes in iterations:
        lengths: dict[Hashable, list[int]] = {}
        for env, length in episodes:
            lengths.setdefault(group_of[env], []).append(length)
        played += sum(map(sum, lengths.values()))
        moved += sum(max(group) * len(group) for group in lengths.values())
    return 1 - played / moved


def main() -> None:
    measured, rest = 1, sys.argv[1:]
    if "--measured" in rest:
        at = rest.index("--measured")
        measured = int(rest[at + 1])
        del rest[at : at + 2]
    example = load_example()
    with tempfile.TemporaryDirectory() as folder:
        args = tyro.cli(example.Args, args=["--out", folder, *rest])
        if args.scenes is not None and args.episodes_per_env != 1:
            sys.exit(f"Expected --episodes-per-env 1 with --scenes, got {args.episodes_per_env}.")
        if args.scenes is not None and args.min_ready is not None:
            sys.exit(
                f"Expected no --min-ready with --scenes, whose worlds move together, got {args.min_ready}."
            )
        run = example.Run(args)
        chunk_size = run.actor.policy.chunk_size
        env = example.make_envs(args, chunk_size)
        try:
            run.iterate(env)
            watch = Stopwatch(env.unwrapped.worker_pids)
            own_s = time.process_time()
            with recorded_play(example) as played:
                rows = [run.iterate(env) for _ in range(measured)]
            own_s = time.process_time() - own_s
            total = watch.read()
            workers = len(env.unwrapped.worker_pids)
            if args.scenes is not None:
                groups = {i: id(home) for i, home in homes_of(env).items()}
                idle = idle_share([episodes for _, episodes in played], groups)
                wait = example.torch.cuda.synchronize if example.torch.cuda.is_available() else lambda: None
                pictures = picture_share_of_worlds(env, lambda: run.iterate(env), wait)
        finally:
            env.close()
        if args.scenes is None:
            pictures = picture_share(example, args, chunk_size)

    sums = {name: sum(row[f"time/{name}"] for row in rows) for name in ("env", "critic", "policy", "update")}
    beside = {name: sums.pop(name) for name in ("critic", "policy") if args.min_ready is not None}
    env_s = sums.pop("env") if args.min_ready is None else sum(play.seconds for play in played)
    worker_s = (total["cpu_s"] - own_s) / max(1, workers)
    busy_s = min(worker_s, env_s) if args.scenes is None else env_s * (1 - idle)
    parts = {
        "physics": busy_s * (1 - pictures),
        "pictures": busy_s * pictures,
        "waiting": env_s - busy_s,
        **{name: sums[name] for name in ("critic", "policy", "update") if name in sums},
    }
    parts["rest"] = max(0.0, total["clock_s"] - sum(parts.values()))
    steps = sum(length for play in played for _, length in play.episodes)
    where = f"{workers} workers" if args.scenes is None else "worlds"
    print(f"{args.num_envs} envs in {where}, {measured} iterations, {steps} env steps, critic {args.critic}")
    print(f"{total['clock_s'] / measured:.2f} s an iteration, {steps / total['clock_s']:.0f} env steps/s")
    for name, seconds in parts.items():
        print(f"{name:10} {seconds / measured:8.2f} s {seconds / total['clock_s']:7.1%}")
    for name, seconds in beside.items():
        share = seconds / total["clock_s"]
        print(f"beside the envs, in none of these: {name} {seconds / measured:.2f} s {share:.1%}")


if __name__ == "__main__":
    main()
