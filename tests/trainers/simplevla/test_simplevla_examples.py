"""The example's commands against SimpleVLA-RL's own configuration: every key is there, every size divides."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from example_commands import printed_config

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples/train_simplevla"


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    variables = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "SIMPLEVLA": os.environ["SIMPLEVLA_PATH"],
        "SFT_MODEL_PATH": "/models/openvla-oft",
        "TMPDIR": str(tmp_path),
    }
    variables.pop("VLAC_GYM_SETTINGS", None)
    return variables


@pytest.mark.parametrize(
    ("script", "val_only", "library", "settings"),
    [
        ("run_openvla_oft_rl.sh", "false", "plugin", "config.yaml"),
        ("run_shared_cards.sh", "false", "sleeping", "shared_cards.yaml"),
        ("eval_openvla_oft.sh", "true", "plugin", "config.yaml"),
    ],
)
def test_commands_compose_the_trainers_configuration(
    environment, tmp_path, script, val_only, library, settings
):
    printed = printed_config(EXAMPLE / script, environment)
    assert f"external_lib: verl_env_adapter.simplevla.{library}" in printed
    assert f"val_only: {val_only}" in printed
    (runtime_env,) = tmp_path.glob("*.json")
    variables = json.loads(runtime_env.read_text())["env_vars"]
    assert variables["VLAC_GYM_SETTINGS"] == str(EXAMPLE / settings)


def dry_run(environment, script, *overrides):
    return subprocess.run(
        [EXAMPLE / script, "--dry-run", *overrides],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("script", ["run_openvla_oft_rl.sh", "run_shared_cards.sh"])
def test_dry_run_checks_the_recipe_and_plans_the_card(environment, script):
    done = dry_run(environment, script)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["step"]["episodes"] == 512
    assert shown["step"]["optimizer_steps"] == 4
    assert max(phase["sum"] for phase in shown["card_gb"].values()) < 80
    named = [line for line in done.stderr.splitlines() if line.startswith("CUDA_VISIBLE_DEVICES=")]
    assert len(named) == (8 if script == "run_shared_cards.sh" else 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.n_sampels=8", "Could not override 'data.n_sampels'"),
        ("data.n_samples=6", "a divisor of data.n_samples (6), got 32"),
        ("trainer.runtime_env=none", "Expected env_vars in trainer.runtime_env"),
    ],
)
def test_dry_run_refuses(environment, override, message):
    done = dry_run(environment, "run_openvla_oft_rl.sh", override)
    assert done.returncode == 2
    assert message in done.stderr


def test_recipe_sets_all_that_the_trainers_own_does(environment):
    """Each override of the checkout's run_openvla_oft_rl_libero.sh is one of ours, with the same number."""
    theirs = (Path(environment["SIMPLEVLA"]) / "examples/run_openvla_oft_rl_libero.sh").read_text()
    ours = (EXAMPLE / "run_openvla_oft_rl.sh").read_text()
    differing = {
        line
        for line in map(str.strip, theirs.replace("\\", "").splitlines())
        if line.partition("=")[0].count(".") >= 1 and " " not in line and line not in ours
    }
    assert {line.partition("=")[0] for line in differing} == OTHERWISE


OTHERWISE = {
    # Variables of another name.
    "data.task_suite_name",
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.model.vla",
    "actor_rollout_ref.actor.ppo_micro_batch_size",
    "actor_rollout_ref.rollout.experiment_name",
    "actor_rollout_ref.rollout.unnorm_key",
    "actor_rollout_ref.rollout.task_suite_name",
    "actor_rollout_ref.rollout.pretrained_checkpoint",
    "data.accuracy_lower_bound",
    "data.accuracy_upper_bound",
    "trainer.project_name",
    "trainer.experiment_name",
    "trainer.default_local_dir",
    "trainer.n_gpus_per_node",
    "trainer.nnodes",
    "trainer.runtime_env",
    # No W&B without being asked.
    "trainer.logger",
    "trainer.wandb_mode",
}
