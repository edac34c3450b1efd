"""What an example's command would run: `printed_config`, `given_overrides`."""

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


def given_overrides(script: Path, environment: Mapping[str, str], folder: Path) -> list[str]:
    """What a script's dry run hands to its Python after `--`; no trainer is needed.

    Args:
        script: Takes `--dry-run`, and the Python from `PYTHON`.
        environment: Variables of the script.
        folder: Empty folder for a stand-in of Python.
    """
    python = folder / "python"
    python.write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", str(script), "--dry-run"],
        env={**environment, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split("\n--\n")[1].splitlines()
