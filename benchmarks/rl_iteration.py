"""Where an iteration of examples/train_ppo.py spends its time, as shares of the iteration.

    python benchmarks/rl_iteration.py --critic nano --num-envs 8 --tasks libero_spatial:0,libero_object:0

The options are those of the example. After one iteration that is not counted (models are compiled in it),
`--measured` of them are timed. Critic, policy and update are what the run's own clocks say. The rest is the envs': what
a worker process computes on average (its processor time), split into physics and pictures by one env's alone in this
process, and waiting: for the slowest env of each step, for envs that are over, for messages.
"""

import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

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


def main() -> None:
    measured, rest = 1, sys.argv[1:]
    if "--measured" in rest:
        at = rest.index("--measured")
        measured = int(rest[at + 1])
        del rest[at : at + 2]
    example = load_example()
    with tempfile.TemporaryDirectory() as folder:
        args = tyro.cli(example.Args, args=["--out", folder, *rest])
        run = example.Run(args)
        env = example.make_envs(args, run.actor.policy.chunk_size)
        try:
            run.iterate(env)
            watch = Stopwatch(env.unwrapped.worker_pids)
            own_s = time.process_time()
            rows = [run.iterate(env) for _ in range(measured)]
            own_s = time.process_time() - own_s
            total = watch.read()
            workers = len(env.unwrapped.worker_pids)
        finally:
            env.close()
        pictures = picture_share(example, args, run.actor.policy.chunk_size)

    sums = {name: sum(row[f"time/{name}"] for row in rows) for name in ("env", "critic", "policy", "update")}
    busy_s = min((total["cpu_s"] - own_s) / workers, sums["env"])
    parts = {
        "physics": busy_s * (1 - pictures),
        "pictures": busy_s * pictures,
        "waiting": sums["env"] - busy_s,
        "critic": sums["critic"],
        "policy": sums["policy"],
        "update": sums["update"],
    }
    parts["rest"] = max(0.0, total["clock_s"] - sum(parts.values()))
    steps = sum(row["rollout/episodes"] * row["env/episode_length"] for row in rows)
    print(
        f"{args.num_envs} envs in {workers} workers, {measured} iterations, {steps:.0f} env steps, critic {args.critic}"
    )
    print(f"{total['clock_s'] / measured:.2f} s an iteration, {steps / total['clock_s']:.0f} env steps/s")
    for name, seconds in parts.items():
        print(f"{name:10} {seconds / measured:8.2f} s {seconds / total['clock_s']:7.1%}")


if __name__ == "__main__":
    main()
