"""Env steps per second of `make_vec(backend="warp")`, pictures, critic and rule included, beside processes.

    python benchmarks/warp_envs.py scenes/libero_spatial_[0-3] --envs 1024
    python benchmarks/warp_envs.py scenes/libero_spatial_0 --envs 256 1024 --critics scripted:0 'nano?device=cuda' \\
        --pictures numpy torch --baseline PYTHON --baseline-path PATH

Runs in an environment with vlac-gym[warp] on a task of `vlac-gym export-scenes`, or on several of one suite, among
which the envs are dealt out. Random actions in chunks; both cameras are looked at after each chunk, a critic checks
each env there, and no critic ends an episode. `--baseline` names an interpreter with vlac-gym[libero]: independent
processes of the first task, one per core, without vector env and critic, by vector_scaling.py, same chunks, cameras and
pictures, in the same run; each rate is then printed as a ratio, too.

A line says where the time of a chunk goes: steps of the simulator, pictures, the critic, and the rest, which is this
process's Python (the rule, copies). `--pictures numpy torch` measures pictures in this process's memory and pictures
that stay on the device one after the other; each rate is then printed as a multiple of the first kind's, too. On warp's
CPU device (`--device cpu`) it only shows that the parts work.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from process_baseline import measure_baseline

from vlac_gym import make_vec
from vlac_gym.critic import make_critic
from vlac_gym.envs.warp.worlds import WarpWorlds
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper

PARTS = {
    "step": "physics",
    "success": "physics",
    "failed": "physics",
    "pictures": "pictures",
    "start": "physics",
}


class Clock:
    """Seconds by part, of calls of `WarpWorlds` while it is installed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        plain = {name: getattr(WarpWorlds, name) for name in PARTS}
        for name, method in plain.items():
            setattr(WarpWorlds, name, self._timed(method, PARTS[name]))
        try:
            yield
        finally:
            for name, method in plain.items():
                setattr(WarpWorlds, name, method)

    def _timed(self, method: Any, part: str) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = method(*args, **kwargs)
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began
            return result

        return timed


def main() -> None:
    """Measures each number of envs with each critic, and prints a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "scene",
        type=Path,
        nargs="+",
        help="a task's folder, as `vlac-gym export-scenes` writes it; several must lie in one folder",
    )
    parser.add_argument("--envs", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--critics", nargs="+", default=["scripted:0"], metavar="SPEC")
    parser.add_argument("--pictures", nargs="+", default=["numpy"], choices=["numpy", "torch"])
    parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--step-limit", type=int, default=160)
    parser.add_argument("--seconds", type=float, default=10.0, help="per measurement")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--baseline", metavar="PYTHON", help="an interpreter with vlac-gym[libero]")
    parser.add_argument("--baseline-path", default="", help="its PYTHONPATH")
    parser.add_argument("--json", type=Path, help="append a line per measurement")
    args = parser.parse_args()
    tasks = [json.loads((folder / "task.json").read_text()) for folder in args.scene]
    if (
        len({folder.resolve().parent for folder in args.scene}) > 1
        or len({each["suite"] for each in tasks}) > 1
    ):
        parser.error("Expected tasks of one suite in one folder.")
    base = baseline_rate(args, tasks[0]) if args.baseline else None
    for count in args.envs:
        for spec in args.critics:
            first: float | None = None
            for pictures in args.pictures:
                result = measure(args, tasks, count, spec, pictures)
                first = first or result["steps_per_s"]
                if len(args.pictures) > 1:
                    result[f"times {args.pictures[0]}"] = round(result["steps_per_s"] / first, 2)
                if base is not None:
                    result["ratio"] = round(result["steps_per_s"] / base, 2)
                show(args, count, spec, pictures, result)


def measure(
    args: argparse.Namespace, tasks: list[dict[str, Any]], count: int, spec: str, pictures: str
) -> dict[str, float]:
    """Plays whole chunks for `--seconds`, after two that compile and capture."""
    clock = Clock()
    options = {"image_size": args.image_size, "max_episode_steps": args.step_limit, "device": args.device}
    places = {"backend": "warp", "scenes": args.scene[0].parent, "autoreset_mode": "SameStep", "copy": False}
    task_ids = [task["task_id"] for task in tasks]
    env = make_vec(tasks[0]["suite"], task_ids, count, pictures=pictures, **places, **options)
    judged = VLACRewardWrapper(
        env,
        make_critic(spec),
        done_interval=args.chunk,
        done_threshold=1.0,
        value_stride=args.chunk,
        max_episode_steps=args.step_limit,
    )
    chunked = ActionChunk(judged, args.chunk)
    rng = np.random.default_rng(0)
    chunked.reset(seed=0)
    for _ in range(2):
        chunked.step(rng.uniform(-1, 1, (count, args.chunk, 7)).astype(np.float32))
    steps, critic_before = 0, judged.critic_s
    with clock.installed():
        began = time.perf_counter()
        while time.perf_counter() - began < args.seconds:
            infos = chunked.step(rng.uniform(-1, 1, (count, args.chunk, 7)).astype(np.float32))[4]
            steps += int(infos["chunk"]["executed_steps"].sum())
        seconds = time.perf_counter() - began
    parts = clock.seconds | {"critic": judged.critic_s - critic_before}
    chunked.close()
    shares = {part: round(spent / seconds, 3) for part, spent in sorted(parts.items())}
    return {"steps_per_s": round(steps / seconds, 1), **shares, "rest": round(1 - sum(shares.values()), 3)}


def baseline_rate(args: argparse.Namespace, task: dict[str, Any]) -> float | None:
    """Env steps per second of independent processes on this machine's cores; None if that failed."""
    like_worlds = {
        "cameras": 2,
        "chunks": args.chunk,
        "limits": args.step_limit,
        "image_size": args.image_size,
    }
    alone = {"ways": "sync", "limit_s": 1, "seconds": args.seconds}
    rates = measure_baseline(args.baseline, args.baseline_path, task, **like_worlds, **alone)
    return rates.get("independent")


def show(args: argparse.Namespace, count: int, spec: str, pictures: str, result: dict[str, float]) -> None:
    parts = ", ".join(f"{name} {value}" for name, value in result.items() if name != "steps_per_s")
    what = f"{count:5} envs of {len(args.scene)} tasks, {spec}, {pictures}"
    print(f"{what}: {result['steps_per_s']:8.0f} env steps/s; {parts}", flush=True)
    if args.json:
        with args.json.open("a") as file:
            kind = {"envs": count, "tasks": len(args.scene), "critic": spec, "pictures": pictures}
            file.write(json.dumps(kind | result) + "\n")


if __name__ == "__main__":
    main()
