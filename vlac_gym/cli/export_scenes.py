"""`vlac-gym export-scenes`: writes LIBERO tasks down for `make_vec(backend="warp")` on a machine with a GPU."""

__all__ = ["Args", "run"]

from dataclasses import dataclass
from pathlib import Path

from vlac_gym.envs.libero.tasks import list_tasks
from vlac_gym.envs.warp.export import export_scene
from vlac_gym.envs.warp.scene_files import count_starts
from vlac_gym.errors import ConfigError
from vlac_gym.files.output_folder import claim_folder
from vlac_gym.specs.ids import parse_ids


@dataclass(frozen=True, kw_only=True)
class Args:
    """Which tasks to write, and where."""

    out: Path
    """Folder that gets a folder per task; new or empty, but for --resume."""
    resume: bool = False
    """Add tasks to a folder of exported tasks; those that are there already stay."""
    task_suite: str = "libero_spatial"
    """Suite of the tasks."""
    task_ids: str = "all"
    """Tasks of the suite: all, 0-3, 0,3,8."""
    num_starts: int | None = None
    """Settled initial states 0 to N-1 of each task; default: all."""
    texture_size: int = 1024
    """Longest side of a texture in pixels; larger ones are shrunk."""


def run(args: Args) -> int:
    """Runs the command; see `vlac-gym export-scenes --help`."""
    tasks = list_tasks(args.task_suite)
    chosen = parse_ids(args.task_ids, len(tasks), f"task ids of {args.task_suite}")
    for name, value in (("--num-starts", args.num_starts), ("--texture-size", args.texture_size)):
        if value is not None and value < 1:
            raise ConfigError(f"Expected {name} >= 1, got {value}.")
    for task_id in chosen:
        if args.num_starts is not None and args.num_starts > (most := tasks[task_id].num_init_states):
            raise ConfigError(f"Expected --num-starts <= {most} for task {task_id}, got {args.num_starts}.")
    with claim_folder(args.out, resume=args.resume, ours=("*_[0-9]*",)) as out:
        for task_id in chosen:
            folder = out / f"{args.task_suite}_{task_id}"
            if (folder / "task.json").exists():
                held = count_starts(folder)
                print(f"{folder} was there before, with {held} initial states; delete it to write it anew")
                continue
            export_scene(
                args.task_suite, task_id, folder, num_starts=args.num_starts, texture_size=args.texture_size
            )
            print(f"{folder}: {tasks[task_id].language}", flush=True)
    return 0
