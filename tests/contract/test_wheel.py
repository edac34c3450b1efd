"""The wheel builds, holds both packages, and imports where it is installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_builds_and_imports(tmp_path):
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(tmp_path), cwd=tmp_path)
    (wheel,) = tmp_path.glob("vlac_gym-*.whl")
    site = tmp_path / "site"
    run(*pip, "install", "--no-deps", "--target", str(site), str(wheel), cwd=tmp_path)
    for package in ("vlac_gym", "verl_env_adapter"):
        assert (site / package / "py.typed").exists()
        where = run(
            sys.executable,
            "-c",
            f"import {package}; print({package}.__file__)",
            cwd=tmp_path,
            PYTHONPATH=str(site),
        )
        assert Path(where.strip()).is_relative_to(site)
    page = "from vlac_gym.reporting.rendering import render_template as r; print(r('base.html'))"
    assert "<!doctype html>" in run(sys.executable, "-c", page, cwd=tmp_path, PYTHONPATH=str(site))
    (metadata,) = site.glob("vlac_gym-*.dist-info/METADATA")
    headers, _, readme = metadata.read_text(encoding="utf-8").partition("\n\n")
    assert "Project-URL: VLAC, the critic, https://github.com/InternRobotics/VLAC" in headers
    assert "Description-Content-Type: text/markdown" in headers
    assert "## The training rule" in readme
    assert re.findall(r"\]\((?!https?://|#)[^)]*\)", readme) == []  # an index can't follow them
    assert re.findall(r"\]\((?!https?://|#)[^)]*\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    version = run(sys.executable, "-m", "vlac_gym.cli", "--version", cwd=tmp_path, PYTHONPATH=str(site))
    assert version.strip() == "0.1.0"
