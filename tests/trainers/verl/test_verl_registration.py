"""How verl finds the agent loop, reads the data, and composes the example's configuration."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("default"),  # verl's and Ray's own warnings are not ours to mend.
]

pytest.importorskip("verl")

EXAMPLE = Path(__file__).parents[3] / "examples" / "train_verl"

REGISTRY = """
import verl, sys
assert "verl.experimental.agent_loop.agent_loop" not in sys.modules
import verl.experimental.agent_loop.agent_loop as loops
print("vlac_gym" in loops._agent_loop_registry,
      getattr(loops.AgentLoopWorker._run_agent_loop, "_vlac_gym_phase", False))
"""


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "True True"),
        ({"VERL_USE_EXTERNAL_PLUGINS": "none"}, "False False"),
        (
            {
                "VERL_USE_EXTERNAL_PLUGINS": "none",
                "VERL_USE_EXTERNAL_MODULES": "verl_env_adapter.verl.plugin",
            },
            "True True",
        ),
    ],
)
def test_plugin_registers_the_agent_loop_in_every_process(variables, expected):
    done = subprocess.run(
        [sys.executable, "-c", REGISTRY],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | variables,
    )
    assert done.stdout.strip().splitlines()[-1:] == [expected], done.stderr


def test_datasets_rows_are_what_the_agent_loop_gets(compose, tiny_policy, tmp_path):
    from transformers import AutoTokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    command = [
        sys.executable,
        "-m",
        "verl_env_adapter.verl.dataset",
        "--out",
        str(tmp_path),
        "--tasks",
        "0",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.stdout.splitlines() == [
        f"{tmp_path}/train.parquet: 80 rows",
        f"{tmp_path}/val.parquet: 20 rows",
    ], done.stderr
    config = compose(f"+data.cache_dir={tmp_path}/cache").data
    tokenizer = AutoTokenizer.from_pretrained(tiny_policy)
    rows = {
        name: RLHFDataset(str(tmp_path / f"{name}.parquet"), tokenizer, config)[1]
        for name in ("train", "val")
    }
    assert rows["train"]["agent_name"] == rows["val"]["agent_name"] == "vlac_gym"
    assert rows["train"]["raw_prompt"][0]["content"].startswith("pick up the black bowl next to the ramekin")
    assert {key: rows["train"]["extra_info"][key] for key in ("mode", "task_id", "init_state_id")} == {
        "mode": "train",
        "task_id": 1,
        "init_state_id": 0,
    }
    assert {key: rows["val"]["extra_info"][key] for key in ("mode", "task_id", "init_state_id")} == {
        "mode": "eval",
        "task_id": 1,
        "init_state_id": 40,
    }
    assert rows["val"]["reward_model"]["ground_truth"] == ""


def example_config(script: str, tmp_path: Path, tiny_policy: Path) -> dict:
    import yaml

    variables = {"MODEL": str(tiny_policy), "DATA": str(tmp_path), "PYTHON": sys.executable}
    (tmp_path / "train.parquet").touch()
    done = subprocess.run(
        [str(EXAMPLE / script), "--cfg", "job", "--resolve"],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | variables,
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def test_training_example_composes_verls_configuration(tmp_path, tiny_policy):
    config = example_config("run.sh", tmp_path, tiny_policy)
    rollout = config["actor_rollout_ref"]["rollout"]
    assert config["algorithm"]["adv_estimator"] == "grpo"
    assert rollout["agent"]["default_agent_loop"] == "vlac_gym"
    assert Path(rollout["agent"]["agent_loop_config_path"]) == EXAMPLE / "config.yaml"
    assert (rollout["prompt_length"], rollout["response_length"], rollout["n"]) == (1024, 320, 8)
    assert config["data"]["val_files"] == f"{tmp_path}/val.parquet"
    assert config["trainer"]["use_v1"] is True
    assert config["trainer"]["val_only"] is False


def test_evaluation_example_only_validates(tmp_path, tiny_policy):
    config = example_config("eval.sh", tmp_path, tiny_policy)
    assert config["trainer"]["val_only"] is True
    assert config["trainer"]["val_before_train"] is True
    assert config["trainer"]["experiment_name"] == "libero_spatial_eval"


def test_examples_block_is_valid_and_its_replies_fit(monkeypatch):
    from omegaconf import OmegaConf

    from verl_env_adapter.common.settings import parse_settings
    from verl_env_adapter.verl.action_text import IntegerActionText
    from verl_env_adapter.verl.episode import parse_policy

    monkeypatch.setenv("VLAC_CRITIC", "http://critic:8400")
    (entry,) = OmegaConf.to_container(OmegaConf.load(EXAMPLE / "config.yaml"), resolve=True)
    settings, policy = parse_settings(entry["settings"]), parse_policy(entry["policy"])
    assert settings.critic.spec == "http://critic:8400"
    assert settings.rule.resolve().done_interval == settings.env.chunk == 8
    assert policy.images == ("agentview_image", "wrist_image")
    # The longest reply, were every digit and space a token: 56 numbers of up to 4 digits.
    text = IntegerActionText(chunk=8, low=[-1.0] * 7, high=[1.0] * 7)
    assert len(json.dumps(text.encode([[1.0] * 7] * 8)).split()) == 56
    assert 56 * 5 <= 320


def test_agent_loop_without_settings_says_where_to_give_them(compose, tiny_policy, monkeypatch):
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
    from verl_policy import DrawingPolicy

    monkeypatch.delenv("VLAC_GYM_SETTINGS", raising=False)
    worker = AgentLoopWorker(compose(), DrawingPolicy(str(tiny_policy), numbers=28))
    with pytest.raises(Exception, match="agent_loop_config_path"):
        asyncio.run(
            worker._run_agent_loop(
                {},
                {"step": 0, "sample_index": 0, "rollout_n": 0, "validate": False},
                agent_name="vlac_gym",
                raw_prompt=[],
                extra_info={"seed": 1},
            )
        )
