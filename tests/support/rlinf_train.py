"""RLinf's own entry script on a Ray of its own: `python rlinf_train.py SCRIPT [its arguments …]`."""

import subprocess
import sys

from rlinf_run import own_ray


def main(arguments: list[str]) -> int:
    with own_ray():
        command = [sys.executable, "-m", "verl_env_adapter.rlinf.launch", *arguments]
        return subprocess.run(command).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
