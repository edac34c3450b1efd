"""Starts RLinf's own entry script: `python -m verl_env_adapter.rlinf.launch SCRIPT [its arguments …]`.

RLinf loads its extension module in worker processes only, and only warns where that fails. Here the config is checked
and the module loaded on the driver first, so that RLinf's validation knows the models that it registers.
"""

__all__ = ["main"]

import runpy
import sys
from collections.abc import Sequence

from verl_env_adapter.rlinf import check


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script as if it had been called; returns 2 with the reason on the error output if the config is bad."""
    script, *rest = sys.argv[1:] if arguments is None else arguments
    if status := check.main(rest):
        return status
    sys.argv = [script, *rest]
    runpy.run_path(script, run_name="__main__")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
