"""The demo: one LIBERO episode judged by the shipped critic (train mode), one judged by the simulator (eval mode).

usage: python scripts/demo.py [--out DIR]     writes DIR/001, DIR/002, … and never overwrites a run
"""

import argparse
import contextlib
import itertools
import sys
from pathlib import Path

from vlac_gym.cli import main as vlac_gym_command

EPISODE = ("--task-suite", "libero_spatial", "--task-id", "0", "--init-state-id", "40", "--policy", "expert")
"""An initial state that the critic was not trained on."""
CRITIC = ("--critic", "nano", "--calibration", "nano")


def main() -> int:
    """Runs both episodes; the first failure's exit status wins."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    folder = next_folder(parser.parse_args().out)
    for mode in ("train", "eval"):
        print(f"\n== {mode} mode ==", flush=True)
        run = ("rollout", *EPISODE, *CRITIC, "--mode", mode, "--out", str(folder / mode))
        status = vlac_gym_command(run)
        if status:
            return status
    return 0


def next_folder(root: Path) -> Path:
    """Makes and returns the first `root/NNN` that does not exist; two demos at once get one each."""
    root.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            (folder := root / f"{number:03d}").mkdir()
            break
    return folder


if __name__ == "__main__":
    sys.exit(main())
