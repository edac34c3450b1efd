"""Which tests scripts/test_warp.sh runs, with scripts in the places of both interpreters."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "test_warp.sh"
TESTS = {
    "tests/envs/test_worlds.py": "pytestmark = pytest.mark.{mark}",
    "tests/test_one_of_many.py": "@pytest.mark.{mark}\ndef test_it(): ...",
    "tests/test_of_another_mark.py": "@pytest.mark.{mark}ed\ndef test_it(): ...",
    "tests/test_without_marks.py": "def test_it(): ...",
    "tests/support/warp_marks.py": "WARP = pytest.mark.{mark}",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The script among a few tests, and an environment whose Python writes its arguments to `asked`."""
    for name, text in TESTS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(mark="warp"))  # the script looks into this file, too
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    (tmp_path / "pyproject.toml").touch()
    for environment in ("warp", "libero"):
        python = tmp_path / environment / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" >> "{tmp_path}/{environment}/asked"\n')
        python.chmod(0o755)
    installed = tmp_path / "warp" / ".installed"
    installed.touch()
    os.utime(tmp_path / "pyproject.toml", (0, 0))
    return tmp_path


def test_every_test_marked_warp_is_run(checkout: Path) -> None:
    environment = dict(os.environ, WARP_ENV=f"{checkout}/warp", LIBERO_PYTHON=f"{checkout}/libero/bin/python")
    command = ["bash", str(checkout / "scripts" / "test_warp.sh"), "-x"]
    subprocess.run(command, env=environment, check=True, timeout=60)
    asked = (checkout / "warp" / "asked").read_text().split()
    assert asked == [
        *("-m", "pytest", "-m", "warp"),
        *("tests/envs/test_worlds.py", "tests/test_one_of_many.py", "-x"),
    ]
