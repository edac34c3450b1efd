"""The examples' commands, read without SimpleVLA-RL, and what the check refuses of them."""

import json
from pathlib import Path

import pytest
import yaml
from example_commands import given_overrides

from verl_env_adapter.common.settings import load_settings, parse_settings
from verl_env_adapter.simplevla.recipe import SLEEPING, StepSizes, check_recipe
from vlac_gym.errors import ConfigError

EXAMPLE = Path(__file__).parents[3] / "examples/train_simplevla"
WORKERS = {"ROBOT_PLATFORM": "LIBERO"}
DEFAULTS = {"verifier": {"reward_coef": 5}}
"""Of the trainer's own ppo_trainer.yaml, where the commands say nothing."""


def nested(overrides):
    config = json.loads(json.dumps(DEFAULTS))
    for override in overrides:
        name, _, value = override.partition("=")
        *parents, last = name.split(".")
        part = config
        for parent in parents:
            part = part.setdefault(parent, {})
        part[last] = yaml.safe_load(value)
    return config


@pytest.fixture
def command(tmp_path):
    """The config that a script of the example composes, with more overrides."""

    def composed(*more, script="run_openvla_oft_rl.sh"):
        environment = {
            "PATH": "/usr/bin:/bin",
            "SIMPLEVLA": str(tmp_path),
            "SFT_MODEL_PATH": "/models/openvla-oft",
            "TMPDIR": str(tmp_path),
        }
        return nested([*given_overrides(EXAMPLE / script, environment, tmp_path), *more])

    return composed


@pytest.mark.parametrize(
    ("script", "settings", "library"),
    [
        ("run_openvla_oft_rl.sh", "config.yaml", "verl_env_adapter.simplevla.plugin"),
        ("run_shared_cards.sh", "shared_cards.yaml", SLEEPING),
    ],
)
def test_examples_commands_divide_over_eight_cards(command, script, settings, library):
    config = command(script=script)
    assert config["actor_rollout_ref"]["model"]["external_lib"] == library
    runtime_env = json.loads(Path(config["trainer"]["runtime_env"]).read_text())["env_vars"]
    assert runtime_env["VLAC_GYM_SETTINGS"] == str(EXAMPLE / settings)
    sizes = check_recipe(config, load_settings(EXAMPLE / settings), runtime_env)
    # 64 prompts x 8 samples; 512 steps in chunks of 8 make 64 chunks, 16 for each pass; 512 / 128 optimizer steps;
    # 32 / 8 trajectories of 64 chunks for the old log-probabilities.
    assert sizes == StepSizes(
        cards=8, episodes=512, simulators=8, passes=4, chunks=16, optimizer_steps=4, log_prob_chunks=256
    )


def test_shared_cards_have_a_server_each():
    spec = load_settings(EXAMPLE / "shared_cards.yaml").critic.spec
    assert spec.split(",") == [f"http://127.0.0.1:{8400 + card}" for card in range(8)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("actor_rollout_ref.model.external_lib=null", "would pay the simulator's reward"),
        ("data.task_suite_name=libero_goal", r"data\.task_suite_name 'libero_10'.*got 'libero_goal'"),
        ("actor_rollout_ref.rollout.task_suite_name=libero_goal", r"rollout\.task_suite_name 'libero_10'"),
        ("actor_rollout_ref.model.action_chunks_len=4", "action_chunks_len 8, got 4"),
        ("actor_rollout_ref.actor.num_images_in_input=2", "num_images_in_input 1, got 2"),
        ("algorithm.adv_estimator=rloo", "adv_estimator 'grpo', got 'rloo'"),
        ("data.filter_accuracy=False", "has no batch to train on"),
        ("verifier.reward_coef=0", "reward_coef above 0"),
        ("data.train_batch_size=60", r"oversample_factor as a multiple of cards \(8\), got 60"),
        ("data.val_batch_size=500", r"val_batch_size as a multiple of cards \(8\), got 500"),
        ("actor_rollout_ref.actor.ppo_micro_batch_size=16", "ppo_micro_batch_size 8, one trajectory"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=100", r"multiple of cards \(8\), got 100"),
        (
            "actor_rollout_ref.actor.ppo_mini_batch_size=96",
            r"multiple of ppo_mini_batch_size \(96\), got 512",
        ),
        (
            "actor_rollout_ref.rollout.log_prob_micro_batch_size=24",
            r"divisor of data\.n_samples \(8\), got 24",
        ),
        ("actor_rollout_ref.rollout.log_prob_micro_batch_size=4", r"divisor of data\.n_samples \(8\), got 4"),
        ("actor_rollout_ref.actor.traj_mini_batch_size=10", r"traj_mini_batch_size \(10\), got 64"),
        # 62 prompts of a card in 62 // 10 = 6 parts: 5 x 11 and 7 by torch, 2 x 11 and 4 x 10 by numpy.
        (
            "actor_rollout_ref.rollout.val_micro_batch_size=10",
            r"val_micro_batch_size as a divisor.*62 prompts",
        ),
    ],
)
def test_what_the_trainer_would_find_out_later_is_refused(command, override, message):
    config = command(override)
    with pytest.raises(ConfigError, match=message):
        check_recipe(config, load_settings(EXAMPLE / "config.yaml"), WORKERS)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"env": {"suite": "libero_10", "chunk": 4}}, "env.chunk 8, got 4"),
        ({"env": {"suite": "libero_10", "cameras": ["wrist"]}}, r"\['agentview'\] among env\.cameras"),
        ({"env": {"suite": "libero_10", "tasks": [0]}}, "env.tasks: null"),
        ({"env": {"suite": "libero_10", "max_episode_steps": 600}}, "at most 512"),
        ({"env": {"suite": "libero_10"}, "truncate_as_terminal": True}, "for trainers that bootstrap"),
    ],
)
def test_settings_that_do_not_fit_the_command_are_refused(command, block, message):
    with pytest.raises(ConfigError, match=message):
        check_recipe(command(), parse_settings(block), WORKERS)


def test_second_picture_needs_the_wrists_camera(command):
    config = command(
        "actor_rollout_ref.actor.num_images_in_input=2", "actor_rollout_ref.rollout.num_images_in_input=2"
    )
    with pytest.raises(ConfigError, match=r"\['wrist'\] among env\.cameras for num_images_in_input 2"):
        check_recipe(config, load_settings(EXAMPLE / "config.yaml"), WORKERS)


def test_workers_need_the_robots_name(command):
    with pytest.raises(ConfigError, match="ROBOT_PLATFORM=LIBERO"):
        check_recipe(command(), load_settings(EXAMPLE / "config.yaml"), {})


def test_critic_without_a_server_can_not_sleep(command):
    config = command(f"actor_rollout_ref.model.external_lib={SLEEPING}")
    with pytest.raises(
        ConfigError, match=r"sleeping puts a critic server to sleep, but critic\.spec is 'oracle'\. Use verl"
    ):
        check_recipe(
            config, parse_settings({"env": {"suite": "libero_10"}, "critic": {"spec": "oracle"}}), WORKERS
        )
