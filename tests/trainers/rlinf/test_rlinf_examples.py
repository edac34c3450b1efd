"""The example's files compose with RLinf's own and pass RLinf's validation; RLINF names a checkout of RLinf v0.3."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.trainer, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]

pytest.importorskip("rlinf")

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "train_rlinf"


@pytest.fixture
def environment() -> dict[str, str]:
    """As `run.sh` sets it."""
    if "RLINF" not in os.environ:
        pytest.skip("RLINF is not set: RLinf's recipes are in its repository only, not in its wheel")
    return {
        **os.environ,
        "PYTHON": sys.executable,
        "MODEL": "/models/openvla-oft",
        "SCENES": "/scenes",
        "EMBODIED_PATH": f"{os.environ['RLINF']}/examples/embodiment",
        "PYTHONPATH": str(ROOT / "tests" / "support"),
    }


@pytest.mark.parametrize(
    ("script", "variables", "phases"),
    [
        ("run.sh", {}, ["train", "eval"]),
        ("run.sh", {"CONFIG": "ppo"}, ["train", "eval"]),
        ("run.sh", {"CONFIG": "grpo"}, ["train", "eval"]),
        ("run.sh", {"CONFIG": "worlds"}, ["train", "eval"]),
        ("eval.sh", {}, ["eval"]),
    ],
)
def test_dry_run_shows_the_block(environment, script, variables, phases):
    done = subprocess.run(
        [EXAMPLE / script, "--dry-run"],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    shown = json.loads(done.stdout)
    assert list(shown) == phases
    assert all(shown[phase]["env"]["suite"] == "libero_spatial" for phase in phases)


def test_dry_run_names_the_nearest_key(environment):
    command = [EXAMPLE / "run.sh", "--dry-run", "+env.train.vlac_gym.critic.spce=oracle"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "Did you mean 'spec'?" in done.stderr


@pytest.mark.parametrize("name", ["config", "eval", "ppo", "grpo", "worlds"])
def test_rlinf_accepts_the_config(environment, name):
    command = [sys.executable, ROOT / "tests" / "support" / "rlinf_validate.py", EXAMPLE, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "valid: libero_spatial_" in done.stdout
