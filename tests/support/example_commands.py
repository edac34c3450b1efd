"""What an example's command would run: `printed_config`."""

import subprocess
from collections.abc import Mapping
from pathlib import Path


def printed_config(script: Path, environment: Mapping[str, str], cwd: Path | None = None) -> str:
    """The trainer's configuration as hydra prints it (`--cfg job`) for a `run.sh` or `eval.sh`, run with bash."""
    done = subprocess.run(
        ["bash", str(script), "--cfg", "job"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
    )
    return done.stdout
