"""LIBERO batched on a GPU by mujoco-warp: env steps per second, and how far its physics is from the env's.

    python benchmarks/gpu_recording.py --tasks 0 --out recording                # where vlac-gym[libero] is installed
    python benchmarks/gpu_simulation.py recording/libero_spatial_0 --worlds 64 256 1024 4096 --baseline PYTHON
    python benchmarks/gpu_simulation.py recording/libero_spatial_0 --check --replay --device cpu
    python benchmarks/gpu_simulation.py recording/libero_spatial_* --expert PYTHON
    python benchmarks/gpu_simulation.py recording/libero_spatial_0 --verdicts PYTHON --device cpu  # --textures 1024

All but the first need `pip install mujoco-warp`, which brings a MuJoCo that the env refuses: an interpreter of its
own. One env step is 25 physics steps of 2 ms with LIBERO's OSC_POSE controller in the loop, and the goal's verdict; on
a GPU it is one captured graph. Worlds begin in the task's settled official states and get full-range random actions.

- Rates (``--worlds``): all worlds' env steps per second, memory, and whether contacts or constraints found no room.
- ``--baseline PYTHON``: the same task in an interpreter with vlac-gym[libero], one env per core without pictures, by
  vector_scaling.py, independent processes and `make_vec`; each rate is then printed as a ratio, too.
- ``--pictures 128 256``: pictures per second of both cameras, by each of ``--renderers``: gpu_pictures.py, which draws
  as MuJoCo's OpenGL does, and mujoco-warp's own.
- ``--verdicts PYTHON``: states of four episodes drawn by the env in an interpreter with vlac-gym[libero] and by each of
  ``--renderers``: levels apart, verdicts of a critic (``--critic``) on both, actions of a clone (``--policy``) on both.
- ``--check``: settled states, recorded torques with a grasp in them, and the controller, against the recording.
- ``--replay``: the expert's recorded actions, open loop: does success hold?
- ``--expert PYTHON``: the expert in closed loop, from the recorded starts, in processes of an interpreter with
  vlac-gym[libero]: how many it solves, against the recording, with an interval of the difference.

``--distances half`` (the default) reports the distance of touching boxes as MuJoCo up to 3.3 did;
docs/gpu_simulation.md says why.
"""

import argparse
import json
import os
import subprocess
import time
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from gpu_statistics import compare
from process_baseline import measure_baseline

if TYPE_CHECKING:
    from gpu_recorded import Recording

    from vlac_gym.envs.warp.worlds import WarpWorlds

Outcome: TypeAlias = tuple[list[bool], list[bool]]
"""Whether each start was solved, here and in the recording."""
CHECKS = ("controller", "settling", "torques")
CAMERAS = ("agentview", "robot0_eye_in_hand")
RENDERERS = ("opengl", "plain")
VERDICT_PIXELS = 256
BASELINE_LIMIT = 200
"""Env steps per episode of the baseline, which looks once per episode."""


def main() -> None:
    """Measures what was asked for and prints a line each."""
    args = parse()
    import warp as wp
    from gpu_recorded import read_recording

    wp.config.log_level = wp.LOG_WARNING
    outcomes: list[Outcome] = []
    with wp.ScopedDevice(args.device):
        for folder in args.recordings:
            measure(args, read_recording(folder), outcomes)
    if len(outcomes) > 1:
        print(compare("all tasks", *merged(outcomes)), flush=True)


def measure(args: argparse.Namespace, recording: "Recording", outcomes: list[Outcome]) -> None:
    """What was asked for, of one task; appends what the expert solved."""
    print(describe(args, recording), flush=True)
    if args.check or args.replay:
        check(args, recording)
    if args.expert:
        outcomes.append(run_expert(args, recording))
    if args.verdicts:
        ask_verdicts(args, recording)
    bases = baseline_rates(args, recording) if args.baseline else {}
    for count in args.worlds:
        print(measure_rate(args, recording, count, bases), flush=True)
        for pixels, renderer in product(args.pictures, args.renderers if args.pictures else ()):
            print(measure_pictures(args, recording, count, pixels, renderer), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recordings",
        type=Path,
        nargs="+",
        metavar="recording",
        help="a task's folder, as gpu_recording.py writes it",
    )
    parser.add_argument("--worlds", type=int, nargs="*", default=[])
    parser.add_argument("--device", default="cuda:0", help="cuda:0, or cpu")
    parser.add_argument("--steps", type=int, default=50, help="env steps per measurement")
    parser.add_argument(
        "--check", nargs="*", choices=CHECKS, metavar="PART", help=f"{', '.join(CHECKS)}; all"
    )
    parser.add_argument("--replay", action="store_true")
    parser.add_argument("--episodes", type=int, default=100, help="of the recording, the first so many")
    parser.add_argument("--copies", type=int, default=1, help="worlds per replayed episode")
    parser.add_argument("--settle", type=int, default=10, help="official states that --check settles")
    parser.add_argument("--no-reference", action="store_true", help="of --check: leave C MuJoCo out")
    parser.add_argument("--distances", choices=("half", "own"), default="half", help="of touching boxes")
    parser.add_argument("--boxes", choices=("convex", "primitive"), default="primitive", help="their test")
    parser.add_argument("--contacts", type=int, default=256, help="room per world")
    parser.add_argument("--constraints", type=int, default=768, help="room per world")
    parser.add_argument("--iterations", type=int, default=5, help="of the solver; 0: the scene's own")
    parser.add_argument("--line-search", type=int, default=10, help="of its line search; 0: the scene's own")
    parser.add_argument("--pictures", type=int, nargs="*", default=[], metavar="PIXELS")
    parser.add_argument("--renderers", nargs="+", choices=RENDERERS, default=list(RENDERERS))
    parser.add_argument("--verdicts", metavar="PYTHON", help="an interpreter with vlac-gym[libero]")
    parser.add_argument("--verdicts-path", default="", help="its PYTHONPATH")
    parser.add_argument("--verdicts-folder", type=Path, default=Path("verdicts"), help="for states and PNGs")
    parser.add_argument("--critic", default="nano", help="of --verdicts")
    parser.add_argument("--policy", type=Path, help="of --verdicts: a folder of vlac-gym clone's, e.g.")
    parser.add_argument("--expert", metavar="PYTHON", help="an interpreter with vlac-gym[libero]")
    parser.add_argument("--expert-path", default="", help="its PYTHONPATH")
    parser.add_argument("--expert-processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--expert-steps", type=int, default=160, help="an episode's most steps, as recorded")
    parser.add_argument("--baseline", metavar="PYTHON", help="an interpreter with vlac-gym[libero]")
    parser.add_argument("--baseline-path", default="", help="its PYTHONPATH")
    parser.add_argument("--baseline-seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path, help="append a line per rate")
    args = parser.parse_args()
    args.check = args.check if args.check or args.check is None else list(CHECKS)
    if bad := [
        number
        for number in (
            *(*args.worlds, *args.pictures, args.steps, args.copies, args.episodes),
            *(args.expert_processes, args.expert_steps),
        )
        if number < 1
    ]:
        parser.error(f"expected numbers from 1 on, got {bad}")
    for folder in args.recordings:
        if not (folder / "task.json").is_file():
            parser.error(f"{folder} has no task.json; write it: python benchmarks/gpu_recording.py --out …")
    if not (args.worlds or args.check or args.replay or args.expert or args.verdicts):
        parser.error("nothing to do: give --worlds, --check, --replay, --expert or --verdicts")
    return args


def describe(args: argparse.Namespace, recording: "Recording") -> str:
    """Versions, device, and what the installed MuJoCo compiles to other numbers."""
    import mujoco
    import warp as wp
    from mujoco_warp import __version__ as version

    device = wp.get_device()
    changed = ", ".join(f"{name} {apart:.0e}" for name, apart in recording.changed.items()) or "none"
    return (
        f"{task_name(recording)} recorded under mujoco {recording.task['mujoco']}; mujoco-warp {version}, mujoco "
        f"{mujoco.__version__}, warp {wp.__version__}, {device.name}; box distances {args.distances}, test "
        f"{args.boxes}, solver's limits {args.iterations or 'own'}, {args.line_search or 'own'}; numbers compiled "
        f"otherwise and written back: {changed}"
    )


def task_name(recording: "Recording") -> str:
    return f"{recording.task['suite']}_{recording.task['task_id']}"


def make_worlds(args: argparse.Namespace, recording: "Recording", count: int) -> "WarpWorlds":
    from vlac_gym.envs.warp.worlds import Room, WarpWorlds, WorldPhysics

    return WarpWorlds(
        [(recording, count)],
        room=Room(args.contacts, args.constraints, args.contacts),
        physics=WorldPhysics(
            half_distances=args.distances == "half",
            primitive_boxes=args.boxes == "primitive",
            iterations=args.iterations or None,
            line_search=args.line_search or None,
        ),
        device=args.device,
    )


def check(args: argparse.Namespace, recording: "Recording") -> None:
    """What `--check` and `--replay` ask for."""
    import gpu_checks

    def make(count: int) -> "WarpWorlds":
        return make_worlds(args, recording, count)

    wanted = args.check or ()
    if "controller" in wanted:
        print(gpu_checks.check_controller(recording, make), flush=True)
    if "settling" in wanted:
        print(gpu_checks.check_settling(recording, make, args.settle), flush=True)
    if "torques" in wanted:
        half = args.distances == "half"
        reference = None if args.no_reference else gpu_checks.ReferenceWorld(recording, half_distances=half)
        for line in gpu_checks.check_torques(recording, make, reference, args.episodes):
            print(line, flush=True)
    if args.replay:
        for line in gpu_checks.replay(recording, make, args.episodes, args.copies):
            print(line, flush=True)


def begin(recording: "Recording", worlds: "WarpWorlds") -> None:
    """Puts the worlds into the settled official states, in turn."""
    import numpy as np

    worlds.start(np.arange(worlds.num_worlds, dtype=np.int32) % len(recording.starts["qpos"]))


def run_expert(args: argparse.Namespace, recording: "Recording") -> Outcome:
    """What `--expert` asks for, of one task: whether each start was solved, here and in the recording."""
    import numpy as np
    from gpu_expert import Experts, solve

    from vlac_gym.envs.warp.scene_files import START_ARRAYS

    episodes = recording.episodes[:-1][: args.episodes]
    worlds = make_worlds(args, recording, len(episodes))
    starts = {name: np.stack([one[name][0] for one in episodes]) for name in START_ARRAYS}
    began = time.perf_counter()
    command = (args.expert, args.expert_path, recording.task, len(episodes), args.expert_processes)
    with Experts(*command) as experts:
        first = solve(worlds, starts, experts, args.expert_steps)
    outcome = [bool(step >= 0) for step in first], [bool(one["success"][-1]) for one in episodes]
    seconds, problems = time.perf_counter() - began, worlds.problems()
    result = {"expert": task_name(recording), "first_success": first.tolist(), "recorded": outcome[1]}
    append(args.json, {**result, "recorded_steps": [len(one["actions"]) for one in episodes], **problems})
    text = ", ".join(f"{name} {value}" for name, value in problems.items())
    print(f"{compare(task_name(recording), *outcome)}; {text}; {seconds:.0f} s", flush=True)
    return outcome


def merged(outcomes: list[Outcome]) -> Outcome:
    solved, recorded = zip(*outcomes, strict=True)
    return list(chain(*solved)), list(chain(*recorded))


def measure_rate(
    args: argparse.Namespace, recording: "Recording", count: int, bases: dict[str, float]
) -> str:
    """Env steps per second of `count` worlds under random actions; actions lie on the device already."""
    import numpy as np
    import warp as wp

    began = time.perf_counter()
    worlds = make_worlds(args, recording, count)
    begin(recording, worlds)
    rng = np.random.default_rng(0)
    actions = wp.array(rng.uniform(-1, 1, (args.steps, count, 7)), dtype=float)
    for _ in range(2):  # compiles or loads, then captures
        worlds.step()
    begin(recording, worlds)
    wp.synchronize()
    ready = time.perf_counter()
    for step in range(args.steps):
        wp.copy(worlds.actions, actions[step])
        worlds.step()
    wp.synchronize()
    seconds = time.perf_counter() - ready
    rate = count * args.steps / seconds
    result: dict[str, Any] = {
        "worlds": count,
        "steps_per_s": round(rate, 1),
        "start_s": round(ready - began, 1),
    }
    result |= {"gib": round(memory_gib(), 2), **worlds.problems()}
    result |= {f"ratio to {name}": round(rate / base, 2) for name, base in bases.items()}
    append(args.json, result)
    text = f"{count:5} worlds: {rate:8.0f} env steps/s, {1e3 * seconds / args.steps:.1f} ms per step of all"
    return f"{text}; " + ", ".join(f"{name} {value}" for name, value in list(result.items())[2:])


def memory_gib() -> float:
    """What warp has allocated on the device by now; 0 on a CPU."""
    import warp as wp

    device = wp.get_device()
    return wp.get_mempool_used_mem_high(device) / 2**30 if device.is_cuda else 0.0


def measure_pictures(
    args: argparse.Namespace, recording: "Recording", count: int, pixels: int, renderer: str
) -> str:
    """Pictures per second of both cameras of `count` worlds at their start, bounds of moved geoms included."""
    import warp as wp
    from gpu_pictures import RENDERERS

    worlds = make_worlds(args, recording, count)
    begin(recording, worlds)
    pictures = RENDERERS[renderer](recording.model, count, pixels, CAMERAS)

    def look() -> None:
        pictures.draw(worlds.model, worlds.data)

    look()
    wp.synchronize()
    began, repeats = time.perf_counter(), 10
    for _ in range(repeats):
        look()
    wp.synchronize()
    seconds = time.perf_counter() - began
    rate = repeats * count * len(CAMERAS) / seconds
    result = {"worlds": count, "pixels": pixels, "renderer": renderer, "pictures_per_s": round(rate, 1)}
    append(args.json, result)
    text = f"{count:5} worlds: {rate:8.0f} pictures/s of {pixels} px ({renderer})"
    return f"{text}, {1e3 * seconds / repeats:.1f} ms for all; {memory_gib():.1f} GiB"


def ask_verdicts(args: argparse.Namespace, recording: "Recording") -> None:
    """What `--verdicts` asks for, of one task: gpu_verdicts.py plays, the renderers draw, gpu_verdicts.py judges."""
    import numpy as np
    from gpu_pictures import draw_places

    if not recording.model.ntex:
        raise SystemExit(
            f"Expected a recording with textures, got {task_name(recording)} without any. Write it again: "
            "python benchmarks/gpu_recording.py --textures 1024 …"
        )
    folder, task = args.verdicts_folder / task_name(recording), recording.task
    options = [
        "--suite",
        task["suite"],
        "--task",
        task["task_id"],
        "--folder",
        folder,
        "--critic",
        args.critic,
    ]
    options += ["--pixels", VERDICT_PIXELS, *(["--policy", args.policy] if args.policy else [])]
    environment = dict(os.environ, PYTHONPATH=args.verdicts_path)
    environment.setdefault("MUJOCO_GL", "egl")
    command = [args.verdicts, Path(__file__).with_name("gpu_verdicts.py")]
    run_or_exit([*command, "play", *options], environment)
    with np.load(folder / "states.npz") as states:
        places = states["qpos"]
    drawn = {
        name: draw_places(recording.model, places, VERDICT_PIXELS, CAMERAS, name) for name in args.renderers
    }
    np.savez(folder / "pictures.npz", **drawn)
    run_or_exit([*command, "judge", *options], environment)


def run_or_exit(command: list[Any], environment: dict[str, str]) -> None:
    """Runs a command to its end, whose failure is this one's."""
    words = [str(word) for word in command]
    if code := subprocess.run(words, env=environment).returncode:
        raise SystemExit(f"Ended with {code}, see above: {' '.join(words)}")


def baseline_rates(args: argparse.Namespace, recording: "Recording") -> dict[str, float]:
    """Env steps per second of all cores of this machine, by way, without pictures but one per episode."""
    once = {"cameras": 1, "chunks": BASELINE_LIMIT, "limits": BASELINE_LIMIT, "image_size": 64}
    return measure_baseline(
        args.baseline,
        args.baseline_path,
        recording.task,
        **once,
        ways="ready",
        seconds=args.baseline_seconds,
    )


def append(path: Path | None, result: dict[str, Any]) -> None:
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
