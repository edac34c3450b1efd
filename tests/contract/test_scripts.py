"""What scripts/ start, with scripts in the places of the interpreters."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
TESTS = {
    "tests/envs/test_worlds.py": "pytestmark = pytest.mark.{mark}",
    "tests/test_one_of_many.py": "@pytest.mark.{mark}\ndef test_it(): ...",
    "tests/test_of_another_mark.py": "@pytest.mark.{mark}ed\ndef test_it(): ...",
    "tests/test_without_marks.py": "def test_it(): ...",
    "tests/support/warp_marks.py": "WARP = pytest.mark.{mark}",
}
PYTHON = """#!/usr/bin/env bash
echo "${{PYTHONDONTWRITEBYTECODE:+without byte code: }}$*" >> "{asked}"
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scripts among a few tests, and environments whose Pythons write their arguments to `asked`."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    for name, text in TESTS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(mark="warp"))  # the script looks into this file, too
    shutil.copytree(SCRIPTS, tmp_path / "scripts")
    (tmp_path / "pyproject.toml").touch()
    for environment in ("warp", "libero"):
        python = tmp_path / environment / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(PYTHON.format(asked=f"{tmp_path}/{environment}/asked"))
        python.chmod(0o755)
    installed = tmp_path / "warp" / ".installed"
    installed.touch()
    os.utime(tmp_path / "pyproject.toml", (0, 0))
    return tmp_path


def test_every_test_marked_warp_is_run(checkout: Path) -> None:
    environment = dict(os.environ, WARP_ENV=f"{checkout}/warp", LIBERO_PYTHON=f"{checkout}/libero/bin/python")
    command = ["bash", str(checkout / "scripts" / "test_warp.sh"), "-x"]
    subprocess.run(command, env=environment, check=True, timeout=60)
    assert (checkout / "warp" / "asked").read_text().splitlines() == [
        "-m pytest -m warp tests/envs/test_worlds.py tests/test_one_of_many.py -x"
    ]


def test_a_trainers_byte_code_is_made_though_the_environment_forbids_it(checkout: Path) -> None:
    command = ["bash", str(checkout / "scripts" / "make_trainer_env.sh"), "rlinf", f"{checkout}/libero"]
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    subprocess.run(command, env=environment, check=True, timeout=60)
    *others, last = (checkout / "libero" / "asked").read_text().splitlines()
    assert last == "-c import rlinf.workers.env.env_worker, ray.dashboard.agent"
    assert all(line.startswith("without byte code: ") for line in others)
