"""The examples of all trainers: their files are there, their scripts parse, and their settings blocks too."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from verl_env_adapter.common.settings import load_settings, parse_settings
from verl_env_adapter.experimental_vla.env import VLACChunkEnv
from verl_env_adapter.simplevla.worker import check_settings
from verl_env_adapter.verl_vla.simulator import first_chunk_safe

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = {
    "verl": ["run.sh", "eval.sh"],
    "verl_vla": ["run.sh", "eval.sh"],
    "simplevla": ["run_openvla_oft_rl.sh", "run_shared_cards.sh", "eval_openvla_oft.sh"],
    "experimental_vla": ["run.sh", "eval.sh"],
    "rlinf": ["run.sh", "eval.sh"],
}
SCRIPTS = [EXAMPLES / f"train_{trainer}" / name for trainer, names in FILES.items() for name in names]


def read(name):
    return yaml.safe_load((EXAMPLES / name / "config.yaml").read_text())


def test_every_trainer_has_its_example():
    assert sorted(path.name for path in EXAMPLES.glob("train_*/")) == sorted(
        f"train_{name}" for name in FILES
    )


@pytest.mark.parametrize("trainer", FILES)
def test_example_has_commands_and_a_configuration_that_its_readme_names(trainer):
    folder = EXAMPLES / f"train_{trainer}"
    readme = (folder / "README.md").read_text()
    for name in (*FILES[trainer], "config.yaml"):
        assert (folder / name).is_file()
        assert name in readme


def test_verl_vla_block_fits_the_policy_and_the_first_chunk():
    config = read("train_verl_vla")
    libero = config["cluster"]["env"]["env_worker"]["simulator"]["libero"]
    assert libero["_target_"] == "verl_env_adapter.verl_vla.plugin.VLACLiberoConfig"
    settings = parse_settings(libero["vlac_gym"])
    assert (
        settings.env.chunk == config["cluster"]["actor_rollout_ref"]["model"]["adapter"]["action_chunk_size"]
    )
    assert first_chunk_safe(settings, settings.env.chunk).rule.resolve().min_steps == 11
    assert settings.mode_in("train") == "train"
    assert settings.mode_in("validate") == "eval"


def test_simplevla_block_is_one_that_the_trainer_can_keep():
    settings = check_settings(load_settings(EXAMPLES / "train_simplevla/config.yaml"))
    script = (EXAMPLES / "train_simplevla/run_openvla_oft_rl.sh").read_text()
    assert f"actor_rollout_ref.model.action_chunks_len={settings.env.chunk}\n" in script
    # One check and the value within four fifths of 30 s.
    assert settings.critic_options(30.0)["deadline_s"] == pytest.approx(12.0)


def test_experimental_vla_block_is_one_that_the_trainer_can_keep():
    config = read("train_experimental_vla")
    env = VLACChunkEnv(config["env"]["train"], 0, 1)
    env.close()
    plugin = config["ray_kwargs"]["ray_init"]["runtime_env"]["env_vars"]["VERL_USE_EXTERNAL_MODULES"]
    assert plugin == "verl_env_adapter.experimental_vla.plugin"
    assert f"export VERL_USE_EXTERNAL_MODULES={plugin}" in SCRIPTS_BY_NAME["train_experimental_vla/run.sh"]
    assert env.get_all_state_ids().shape == (500,)


def test_experimental_vla_start_states_are_of_every_task(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    script = EXAMPLES / "train_experimental_vla/make_dataset.py"
    subprocess.run([sys.executable, script, "libero_10", tmp_path / "data"], check=True)
    rows = {
        name: parquet.read_table(tmp_path / f"data/{name}.parquet").to_pylist() for name in ("train", "test")
    }
    assert [len(rows[name]) for name in ("train", "test")] == [400, 100]
    assert [(row["task_ids"], row["state_ids"]) for row in rows["test"][9:11]] == [(0, 49), (1, 90)]


def read_rlinf(name):
    """As OmegaConf resolves it where no variable is set."""
    text = (EXAMPLES / "train_rlinf" / name).read_text()
    return yaml.safe_load(re.sub(r"\$\{oc\.env:\w+,?([^}]*)\}", r"\1", text))


def test_rlinf_worlds_fit_their_batch_and_their_warm_up():
    shared, config = read_rlinf("policy.yaml"), read_rlinf("worlds.yaml")
    train, actor = config["env"]["train"], config["actor"]
    block = shared["env"]["train"]["vlac_gym"] | train["vlac_gym"]
    block["env"] = (
        shared["env"]["train"]["vlac_gym"]["env"] | train["vlac_gym"]["env"] | {"scenes": "/scenes"}
    )
    env = parse_settings({"env": block["env"], "rule": block["rule"], "critic": block["critic"]}).env
    assert (env.backend, env.image_size, env.cameras) == ("warp", 128, ("agentview", "wrist"))
    assert actor["model"]["tasks"] == [f"{env.suite}:{task}" for task in env.tasks]
    starts = env.init_states_in("train"), env.init_states_in("eval")
    assert not starts[0] & starts[1]
    assert config["env"]["eval"]["total_num_envs"] == len(starts[1])
    chunks = train["total_num_envs"] * shared["env"]["train"]["max_episode_steps"] // env.chunk
    assert chunks % actor["global_batch_size"] == 0
    steps = chunks // actor["global_batch_size"] * shared["algorithm"]["update_epoch"]
    assert actor["optim"]["critic_warmup_steps"] == steps  # the first epoch
    runner = config["runner"]
    assert runner["max_epochs"] % runner["val_check_interval"] == 0
    assert runner["save_interval"] % runner["val_check_interval"] == 0


def test_rlinf_workers_find_folders_that_are_named_from_here(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\necho "$START $SCENES"\n')
    python.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(python), "RLINF": "/rlinf"}
    script = ["bash", EXAMPLES / "train_rlinf/run.sh"]

    def seen(**more):
        return subprocess.run(
            script, env=environment | more, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    assert seen(CONFIG="worlds", START="policy", SCENES="scenes") == f"{tmp_path}/policy {tmp_path}/scenes\n"
    assert seen(CONFIG="ppo", START="policy") == f"{tmp_path}/policy \n"
    assert seen(CONFIG="worlds", SCENES="scenes") == f" {tmp_path}/scenes\n"


def test_rlinf_policy_block_fits_its_policy_and_its_batch():
    config = read_rlinf("policy.yaml")
    train, actor = config["env"]["train"], config["actor"]
    settings = parse_settings(train["vlac_gym"])
    assert settings.env.chunk == actor["model"]["num_action_chunks"]
    assert actor["model"]["tasks"] == [f"{settings.env.suite}:{task}" for task in settings.env.tasks]
    assert not settings.env.init_states_in("train") & settings.env.init_states_in("eval")
    samples = train["total_num_envs"] * train["max_steps_per_rollout_epoch"] // settings.env.chunk
    assert samples % actor["global_batch_size"] == 0
    starts = len(settings.env.init_states_in("eval")) * len(settings.env.tasks)
    assert config["env"]["eval"]["total_num_envs"] == starts


SCRIPTS_BY_NAME = {f"{path.parent.name}/{path.name}": path.read_text() for path in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=[f"{path.parent.name}/{path.name}" for path in SCRIPTS])
def test_scripts_are_valid_and_executable(script):
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("trainer", FILES)
def test_scripts_say_what_they_need(trainer):
    done = subprocess.run(
        ["bash", str(EXAMPLES / f"train_{trainer}" / FILES[trainer][0])],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode != 0
    assert "Set " in done.stderr
